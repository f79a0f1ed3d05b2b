"""Documents through the real worker: the thread that a client was told of is the one written."""

from __future__ import annotations

from typing import Any

from machina.queue.names import Queue
from machina.resources import Resources
from machina.worker.crew import WorkerCrew
from tests.builders import agent, step, workflow
from tests.engine.documenting import document
from tests.fleet import PROJECT, ask, get_run, watch


async def test_the_thread_that_a_run_inserts_has_the_id_that_its_start_named(
    api: Resources, worker: WorkerCrew
) -> None:
    definitions = api.store.definitions
    save: dict[str, Any] = workflow(
        document("save", documents={"thread": "{'messages': $.get('messages')}"}),
        name="begin",
        inputs={"messages": "$.get('messages')"},
        outputs={"saved": "$.get('found')[0].get('_id')"},
    )
    load = workflow(
        document("search", filters={"document_id": "$.get('id')", "name": "'thread'"}),
        document(
            "update",
            filters={"document_id": "$.get('id')"},
            documents={"thread": "{**$.get('found')[0].get('value'), 'status': 'idle'}"},
            outputs={},
        ),
        name="finish",
        inputs={"id": "$.get('id')"},
        outputs={"status": "len($.get('found'))"},
    )
    for flow in (save, load):
        await definitions.save(PROJECT, "workflow", flow)
    actor = agent(
        step("begin", inputs={"messages": "$.get('messages')"}, outputs={"id": "$.get('saved')"}),
        step("finish", inputs={"id": "$.get('id')"}, outputs={"count": "$.get('status')"}),
    )
    await definitions.save(PROJECT, "agent", actor)
    run, _ = await api.runs.submit(ask("hello", target_name="actor", queue=Queue.STREAMING))

    await worker.execute(run.id)

    events = await watch(api, run)
    told = events[0]["metadata"]["thread_id"]
    done = events[-1]["metadata"]
    assert (done["status"], done["thread_id"]) == ("executed", told)
    assert done["state"]["id"] == told
    assert done["state"]["count"] == 1
    [thread] = await api.store.documents.find(PROJECT, {"name": "thread"})
    assert thread["_id"] == told
    assert thread["value"]["status"] == "idle"
    assert thread["value"]["messages"][0]["content"] == "hello"
    assert (await get_run(api, run)).thread_reserved is False
