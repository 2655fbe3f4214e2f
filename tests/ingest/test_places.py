"""Lists of places as people save them."""

from pathlib import Path

import pytest

from ingest.areas import places
from ingest.areas.places import Place
from pipeline.errors import UsageError

pytestmark = pytest.mark.ingest

WANT = [Place(name="a", lon=10.5, lat=-48.25), Place(name="São Tomé", lon=6.0, lat=0.5)]


@pytest.mark.parametrize(
    "text",
    [
        "10.5,-48.25,a\n6,0.5,São Tomé\n",
        "lon,lat,name\n10.5,-48.25,a\n6,0.5,São Tomé\n",
        "\ufeffName,Latitude,Longitude\r\na,-48.25,10.5\r\nSão Tomé,0.5,6\r\n",
        "id;y;x;population\na;-48.25;10.5;3\nSão Tomé;0.5;6;4",
        "LNG\tLAT\tcity\n10.5\t-48.25\ta\n6\t0.5\tSão Tomé\n",
        "# two places\n10.5, -48.25, a\n\n6, 0.5, São Tomé\n",
        '10.5 -48.25 a\n6 0.5 "São Tomé"\n',
        '"lon","lat","name"\n"10.5","-48.25","a"\n"6","0.5","São Tomé"\n',
    ],
)
def test_lists(text: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert places.read(path) == WANT


def test_places_without_a_name_get_their_position(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1,2\n3,4,\n5,6,c\n")
    assert [place.name for place in places.read(path)] == ["list-0", "list-1", "c"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no place"),
        ("\n\n", "holds no place"),
        ("# only words\n", "holds no place"),
        ("lon,lat\n", "a header and no place"),
        ("a,b\n1,2\n", "neither numbers nor a header"),
        ("lon,name\n1,x\n", "neither numbers nor a header"),
        ("1\n2\n", "neither numbers nor a header"),
        ("1,2\nx,3\n", "line 2: 'x,3' has no longitude"),
        ("lon,lat\n1,2\n3\n", "line 3: '3' has no longitude"),
        ("1,nan\n", "neither numbers nor a header"),
        ("1,2\n3,inf\n", "line 2"),
        ("48,116\n", "line 1: 48.0, 116.0 are not degrees. Longitude comes first"),
        ("lon,lat\n181,0\n", "line 2: 181.0, 0.0 are not degrees"),
        ("500000,5300000\n", "not degrees"),
    ],
)
def test_bad_lists(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=match):
        places.read(path)


def test_other_encodings_are_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("1,2,Zürich\n".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        places.read(path)
