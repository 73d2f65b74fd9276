"""Other libraries as judges of our saliency maps: one thin function per method."""
