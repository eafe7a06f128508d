"""``python -m controlone_ha.sync.database PARENT``: the synchroniser's process (``worker``)."""

from controlone_ha.sync.database.worker import main

if __name__ == "__main__":
    main()
