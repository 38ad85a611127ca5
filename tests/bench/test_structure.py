import ast

from bench.structure import Definition, circles, definitions, floors, rooms

IMPORTS = {
    "house": {"house.roof"},
    "house.roof": {"house.attic.floor", "house.walls"},
    "house.attic": set(),
    "house.attic.floor": {"house.attic.beams", "house.walls"},
    "house.attic.beams": {"house.walls", "house.attic"},
    "house.walls": {"cellar.stones"},
    "cellar.stones": set(),
}


def test_a_folder_is_one_room_and_other_packages_are_none():
    assert rooms(IMPORTS, "house") == {
        "house.roof": {"house.attic", "house.walls"},
        "house.attic": {"house.walls"},
        "house.walls": set(),
    }


def test_floors_are_the_nodes_of_the_longest_chain():
    assert floors(rooms(IMPORTS, "house")) == 3
    assert floors(IMPORTS) == 6
    assert floors({}) == 0


def test_a_circle_is_reported_once_and_counts_as_one_floor():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert circles(graph) == [frozenset("abc")]
    assert floors(graph) == 2
    assert circles(IMPORTS) == []


def test_methods_and_nested_functions_are_functions_of_their_own():
    source = """
class House:
    def enter(self):
        def knock():
            pass

        if knock:
            class Key:
                pass

    async def leave(self):
        pass
"""
    assert list(definitions("house", ast.parse(source))) == [
        Definition("house.House", 11, 2),
        Definition("house.House.enter", 7),
        Definition("house.House.enter.knock", 2),
        Definition("house.House.enter.Key", 2, 0),
        Definition("house.House.leave", 2),
    ]
