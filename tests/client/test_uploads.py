import hashlib

import pytest
from nst_client.translate import request_to_proto
from nst_client.uploads import SentPictures, Upload

LARGE = bytes(range(256)) * 65
SMALL = bytes(16 * 1024)


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def sent():
    return SentPictures()


@pytest.fixture
def upload(sent):
    """A request with a small content and large other pictures."""

    def upload(content=SMALL, style=LARGE):
        return Upload(lambda: request_to_proto(content, style, init_picture=style, content_mask=b"mask"), sent)

    return upload


def test_the_first_time_everything_is_sent(upload):
    message = upload().message()
    assert (message.content.data, message.styles[0].picture.data, message.init_picture.data) == (SMALL, LARGE, LARGE)


def test_large_pictures_of_an_accepted_request_go_by_their_digest(upload):
    first = upload()
    first.message()
    first.accepted()
    message = upload().message()
    assert message.styles[0].picture.sha256 == message.init_picture.sha256 == digest(LARGE)
    assert (message.content.data, message.content_mask.data) == (SMALL, b"mask")
    assert not message.HasField("reference")


def test_pictures_of_a_request_that_was_not_accepted_are_sent_again(upload):
    upload().message()
    assert upload().message().styles[0].picture.data == LARGE


def test_what_the_server_misses_is_put_back_and_forgotten(upload, sent):
    sent.add([digest(LARGE)])
    short = upload()
    short.message()
    assert short.restore()
    assert short.message().styles[0].picture.data == short.message().init_picture.data == LARGE
    assert digest(LARGE) not in sent
    # There is nothing left to put back: another refusal is another matter.
    assert not short.restore()


def test_a_request_that_was_put_back_stays_whole(upload, sent):
    whole = upload()
    whole.message()
    whole.restore()
    sent.add([digest(LARGE)])
    assert whole.message().styles[0].picture.data == LARGE


def test_a_request_is_built_once(sent):
    built = []
    upload = Upload(lambda: built.append(1) or request_to_proto(b"content", b"style"), sent)
    assert upload.message() is upload.message()
    assert built == [1]


def test_the_pictures_that_were_not_sent_for_longest_are_forgotten():
    sent = SentPictures(most=2)
    sent.add(["a", "b"])
    sent.add(["a"])
    sent.add(["c"])
    assert ["a" in sent, "b" in sent, "c" in sent] == [True, False, True]
