"""J-SIGR for Keras: classifiers that are harder to fool and easier to explain."""
