"""The owner of a folder of blobs: the one store whose mark the folder carries."""

import logging
from collections.abc import Set as AbstractSet

from nst_service.store.blobs import BlobFolder
from nst_service.store.errors import ForeignFolderError

_log = logging.getLogger(__name__)


def claim(folder: BlobFolder, store_id: str, used: AbstractSet[str]) -> None:
    """Mark a folder as that of a store, or check that it carries the mark of this store.

    A folder without a mark is claimed if it is empty and no job needs a file, or if it has most of the files that the
    jobs need. The latter is a folder of a release that made no marks. If it is empty and jobs need files, it may not be
    mounted: it is not claimed, and its blobs are unavailable until it carries the mark.

    Args:
        folder: the folder.
        store_id: the id of the store, which its database keeps.
        used: the SHA-256 of every blob that a job uses.

    Raises:
        ForeignFolderError: the folder belongs to another store, or has files and not those of this store.
        StoreError: the folder cannot be used.
    """
    folder.require_mark(store_id)
    marks = folder.marks()
    if marks - {store_id}:
        raise ForeignFolderError(folder.location, f"it has the mark {min(marks - {store_id})}")
    if store_id not in marks:
        if not _may_claim(folder, used):
            _log.warning(
                "%s is empty, but jobs need files of it; is it mounted? To use it as it is, create the file %s in it",
                folder.location.name,
                folder.mark_name(store_id),
            )
            return
        folder.add_mark(store_id)
        if others := folder.marks() - {store_id}:
            # Two stores have claimed the empty folder at the same time. Neither gets it.
            folder.remove_mark(store_id)
            raise ForeignFolderError(folder.location, f"it has the mark {min(others)}")


def _may_claim(folder: BlobFolder, used: AbstractSet[str]) -> bool:
    """Return whether a folder without a mark is that of the jobs that use these blobs, or can become it.

    Raises:
        ForeignFolderError: the folder has files and not those of the jobs.
    """
    names = folder.names()
    has_most = 2 * len(used & names) >= len(used) > 0
    if names and not has_most:
        raise ForeignFolderError(folder.location, "it has files that the database does not know, and no mark")
    return bool(names) or not used
