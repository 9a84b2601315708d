"""Write a file of settings that the next call reads."""

from lcmulti.choosing import settings


def write(path, text):
    """Write *text* to *path*, forget what was read before, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    settings.reload()
    return str(path)
