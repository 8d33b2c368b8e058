"""Sessions of an agent: each is a durable entity that keeps what was said."""

from concurrent.futures import ThreadPoolExecutor

from agent_framework_durabletask import DurableAgentSession

from newsroom import Newsroom
from sdk import unique


def test_each_turn_of_a_session_sees_all_turns_before(newsroom: Newsroom):
    assistant = newsroom.agent("assistant")
    session = assistant.create_session()
    words = [unique("red"), unique("green"), unique("blue")]
    answers = [assistant.run(word, session=session).text for word in words]
    assert answers == [
        f"heard: {words[0]}",
        f"heard: {words[0]} | {words[1]}",
        f"heard: {words[0]} | {words[1]} | {words[2]}",
    ]
    calls = newsroom.model.calls(words[2])
    assert len(calls) == 1
    assert calls[0].instructions == "You remember what you are told."
    assert calls[0].spoken == [
        ("user", words[0]), ("assistant", answers[0]), ("user", words[1]), ("assistant", answers[1]), ("user", words[2])
    ]
    assert newsroom.transcript(session) == [*calls[0].spoken, ("assistant", answers[2])]


def test_a_session_goes_on_from_another_client(newsroom: Newsroom):
    """A session is known by its id alone, which a client can put away."""
    first = newsroom.agent("assistant")
    session = first.create_session()
    word = unique("red")
    first.run(word, session=session)
    kept = DurableAgentSession.from_dict(session.to_dict())
    assert newsroom.agent("assistant").run("and blue", session=kept).text == f"heard: {word} | and blue"


def test_sessions_side_by_side_do_not_mix(newsroom: Newsroom):
    """S-12.1: each entity has a state of its own, whatever runs beside it."""
    names = [unique("session") for _ in range(6)]

    def talk(name: str) -> list[str]:
        agent = newsroom.agent("assistant")
        session = agent.create_session()
        return [agent.run(f"{name} {turn}", session=session).text for turn in range(3)]

    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(talk, names))
    assert answers == [
        [f"heard: {' | '.join(f'{name} {each}' for each in range(turn + 1))}" for turn in range(3)] for name in names
    ]


def test_two_agents_keep_sessions_apart_under_one_key(newsroom: Newsroom):
    key = unique("key")
    answers = {}
    for name in ("writer", "editor"):
        agent = newsroom.agent(name)
        session = agent.create_session()
        session.durable_session_id.key = key
        answers[name] = agent.run(f"{name} {key}", session=session).text
    assert answers == {name: f"heard: {name} {key}" for name in answers}


def test_turns_sent_at_once_run_one_after_the_other(newsroom: Newsroom):
    """S-12.5, S-12.10: in the order in which they were sent; the sender need not wait for any."""
    assistant = newsroom.agent("assistant")
    session = assistant.create_session()
    words = [unique("word") for _ in range(5)]
    with newsroom.model.holding(words[0]) as gate:
        for word in words[:-1]:
            accepted = assistant.run(word, session=session, options={"wait_for_response": False})
            assert "accepted" in accepted.text
        gate.wait_until_reached()
        assert [len(newsroom.model.calls(word)) for word in words] == [1, 0, 0, 0, 0]
        gate.open()
        assert assistant.run(words[-1], session=session).text == f"heard: {' | '.join(words)}"
    assert [len(newsroom.model.calls(word)) for word in words] == [1, 1, 1, 1, 1]


def test_a_tool_is_called_and_stays_in_the_transcript(newsroom: Newsroom):
    assistant = newsroom.agent("assistant")
    session = assistant.create_session()
    word = unique("word")
    known = f"{word} has {len(word)} letters"
    assert assistant.run(f"look up {word}", session=session).text == f"the tool said: {known}"
    after = unique("after")
    assistant.run(after, session=session)
    [call] = newsroom.model.calls(after)
    assert [role for role, _ in call.spoken] == ["user", "assistant", "tool", "assistant", "user"]
    assert call.spoken[1:4] == [
        ("assistant", f'look_up({{"word": "{word}"}})'), ("tool", known), ("assistant", f"the tool said: {known}")
    ]


def test_a_turn_that_outgrows_its_session_leaves_it_as_it_was(small: Newsroom):
    """S-14.4: the model is asked once and not again; the next turn goes on from the one before."""
    assistant = small.agent("assistant")
    session = assistant.create_session()
    red, long, green = unique("red"), "long" * 1000, unique("green")
    assistant.run(red, session=session)
    assistant.run(long, session=session, options={"wait_for_response": False})
    assert assistant.run(green, session=session).text == f"heard: {red} | {green}"
    assert len(small.model.calls(long)) == 1
    assert [said for who, said in small.transcript(session) if who == "user"] == [red, green]
