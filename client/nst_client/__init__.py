"""The thin client of nst: talks the contract, never imports torch."""
