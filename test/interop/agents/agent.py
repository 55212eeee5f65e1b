"""A worker of livekit-agents whose agents join, say whose they are, and stay.

agent.py --url URL --label LABEL [--name AGENT_NAME] [--type room|publisher] [--threads]
"""

import argparse
import asyncio
import logging
import os

from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.worker import ServerType

TYPES = {"room": ServerType.ROOM, "publisher": ServerType.PUBLISHER}


async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    label = os.environ["AGENT_LABEL"]
    await ctx.room.local_participant.set_attributes({"label": label, "metadata": ctx.job.metadata})
    await ctx.room.local_participant.publish_data(label.encode(), topic="agent")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--type", choices=TYPES, default="room")
    parser.add_argument("--threads", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    # Jobs are processes of their own and read it there.
    os.environ["AGENT_LABEL"] = arguments.label
    executor = JobExecutorType.THREAD if arguments.threads else JobExecutorType.PROCESS
    server = AgentServer(
        ws_url=arguments.url,
        api_key="devkey",
        api_secret="secret",
        host="127.0.0.1",
        port=0,
        job_executor_type=executor,
        num_idle_processes=0,
        # The machine that runs the tests may be busy; that is not what they are about.
        load_fnc=lambda: 0.0,
        # One that has just started may take its time for the first job.
        initialize_process_timeout=60,
    )
    kind = TYPES[arguments.type]
    server.rtc_session(entrypoint, agent_name=arguments.name, type=kind)
    asyncio.run(server.run(devmode=True))


if __name__ == "__main__":
    main()
