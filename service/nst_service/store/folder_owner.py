"""The owner of a folder of blobs: the one store whose mark the folder carries."""

from collections.abc import Set as AbstractSet

from nst_service.store.blobs import BlobFolder
from nst_service.store.errors import ForeignFolderError, StoreUnavailableError


def claim(folder: BlobFolder, store_id: str, used: AbstractSet[str]) -> None:
    """Mark a folder as that of a store, or check that it carries the mark of this store.

    A folder without a mark is claimed if it is empty and no job needs a file, or if it has most of the files that the
    jobs need. The latter is a folder of a release that made no marks.

    Args:
        folder: the folder.
        store_id: the id of the store, which its database keeps.
        used: the SHA-256 of every blob that a job uses.

    Raises:
        ForeignFolderError: the folder belongs to another store, or has files and not those of this store.
        StoreUnavailableError: the folder is empty, but jobs need files of it.
    """
    marks = folder.marks()
    if marks - {store_id}:
        raise ForeignFolderError(folder.location, f"it has the mark {min(marks - {store_id})}")
    if store_id not in marks:
        _check_files(folder, store_id, used)
        folder.add_mark(store_id)
        if others := folder.marks() - {store_id}:
            # Two stores have claimed the empty folder at the same time. Neither gets it.
            folder.remove_mark(store_id)
            raise ForeignFolderError(folder.location, f"it has the mark {min(others)}")
    folder.require_mark(store_id)


def _check_files(folder: BlobFolder, store_id: str, used: AbstractSet[str]) -> None:
    names = folder.names()
    has_most = 2 * len(used & names) >= len(used) > 0
    if names and not has_most:
        raise ForeignFolderError(folder.location, "it has files that the database does not know, and no mark")
    if used and not names:
        raise StoreUnavailableError(
            "the store does not answer",
            f"{folder.location.name}: it is empty, but jobs need files of it; is it mounted? "
            f"To use it as it is, create the file {folder.mark_name(store_id)} in it",
        )
