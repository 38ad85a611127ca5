import subprocess
import sys


def test_the_store_brings_neither_grpc_nor_torch_nor_the_driver_of_postgresql() -> None:
    code = (
        "import sys; import nst_service.store.store; "
        "print([name for name in ('grpc', 'torch', 'google.protobuf', 'PIL', 'psycopg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
