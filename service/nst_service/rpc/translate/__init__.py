"""The translation between the messages of the contract and the types of engine and jobs, without any decision."""
