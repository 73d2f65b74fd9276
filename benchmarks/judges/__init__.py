"""Other libraries as judges of our attacks: one thin function per attack."""
