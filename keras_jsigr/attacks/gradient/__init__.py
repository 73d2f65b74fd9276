"""Attacks by the gradient: FGSM, BIM, PGD, APGD."""
