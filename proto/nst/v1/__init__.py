"""Version 1 of the contract: messages in `style_transfer_pb2`, stubs in `style_transfer_pb2_grpc`."""
