from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.formats import FORMATS, INPUT_MEDIA_TYPES, READ_FORMATS, WRITTEN_FORMATS, names_of


def test_the_media_types_name_the_accepted_formats():
    assert INPUT_MEDIA_TYPES == ("image/png", "image/jpeg", "image/webp", "image/tiff")


def test_formats_are_enumerated_by_their_names():
    assert names_of(READ_FORMATS) == "PNG, JPEG, WebP and TIFF"
    assert names_of(READ_FORMATS[:1]) == "PNG"


def test_every_choice_of_an_output_format_has_one_entry_in_the_table():
    assert list(WRITTEN_FORMATS) == list(OutputFormat)
    written = [known.written_as for known in FORMATS if known.written_as is not None]
    assert len(written) == len(WRITTEN_FORMATS)


def test_a_format_has_bits_exactly_where_it_is_written():
    assert all(bool(known.written_bits) == (known.written_as is not None) for known in FORMATS)
