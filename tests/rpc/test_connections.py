import socket

from nst_service.rpc.connections import disconnect


def test_the_connection_to_a_peer_is_shut_down_and_no_other_one():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        served = [listener.accept()[0] for _ in clients]
        assert disconnect(f"ipv4:127.0.0.1:{clients[0].getsockname()[1]}")
        assert clients[0].recv(1) == b""
        served[1].sendall(b"x")
        assert clients[1].recv(1) == b"x"
        for each in (*clients, *served):
            each.close()


def test_a_peer_without_a_name_is_not_found():
    assert not disconnect("unix:")
    assert not disconnect("ipv4:127.0.0.1:1")
