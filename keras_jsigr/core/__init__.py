"""Ground floor: the pieces that attacks, penalties and saliency all stand on."""
