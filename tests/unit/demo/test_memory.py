"""The last image of each reader: kept while it is used, then forgotten."""

from hf_cxr.demo.memory import Memory


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def memory_of(seconds=10, most=3):
    forgotten, clock = [], Clock()
    return Memory(seconds, most, on_forget=forgotten.append, clock=clock), clock, forgotten


def test_a_value_is_kept_while_it_is_used():
    memory, clock, forgotten = memory_of()
    memory.put("ann", 1)
    for clock.now in (9, 18, 27):
        assert memory.get("ann") == 1
    clock.now = 38
    assert memory.get("ann") is None
    assert (forgotten, len(memory)) == (["ann"], 0)


def test_a_sweep_forgets_what_nobody_asks_for():
    memory, clock, forgotten = memory_of()
    memory.put("ann", 1)
    clock.now = 5
    memory.put("bob", 2)
    clock.now = 11
    memory.sweep()
    assert (forgotten, memory.get("bob"), memory.get("ann")) == (["ann"], 2, None)


def test_the_longest_unused_makes_room():
    memory, _, forgotten = memory_of(most=2)
    memory.put("ann", 1)
    memory.put("bob", 2)
    assert memory.get("ann") == 1
    memory.put("eve", 3)
    assert forgotten == ["bob"]
    memory.put("ann", 4)
    assert (memory.get("ann"), memory.get("eve"), len(memory)) == (4, 3, 2)


def test_a_reader_who_leaves_is_forgotten():
    memory, _, forgotten = memory_of()
    memory.put("ann", 1)
    memory.forget("ann")
    memory.forget("ann")
    assert memory.get("ann") is None
    assert set(forgotten) == {"ann"}
