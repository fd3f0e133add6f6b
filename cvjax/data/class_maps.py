"""Maps of classes: the class of each pixel, or void."""

VOID = 255  # in a map, a pixel of no class: no loss and no figure counts it
