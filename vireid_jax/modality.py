"""The two modalities, in the order in which every array and view lists them."""

MODALITIES = ("visible", "infrared")

Views = tuple[str, ...]  # the modality of each column of images, visible ones first


def columns_by_modality(views: Views) -> dict[str, slice]:
    """Returns which neighbouring columns of the view axis each modality fills.

    Raises ValueError where infrared stands before visible, or a name is unknown.
    """
    legal = [m for m in MODALITIES for view in views if view == m]
    if list(views) != legal:
        raise ValueError(f"views {views} must list {MODALITIES} in this order")
    return {
        m: slice(views.index(m), views.index(m) + views.count(m))
        for m in MODALITIES
        if m in views
    }
