"""How clips become verified files: sources, cutting, checking, the ledger, and manners towards servers."""
