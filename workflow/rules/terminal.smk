# What the terminal and Snakemake's own log say while a run goes on: a line for each job as it starts,
# with how many are done and its log, and below it the bars of the jobs that run. What an error is
# remains as long as it is. A dry run says all that Snakemake knows, such as why a job would run.
import atexit
import logging
import os
import sys
import time
from pathlib import Path

from snakemake.logging import get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent

from rglib.progress import BARS, Board, on_terminal

CHATTER = "Select jobs to execute..."


class LineForEachJob(logging.Filter):
    done = ""

    def filter(self, record):
        if workflow.dryrun:  # is known only once the rules are read
            return True
        event, told = get_event(record), vars(record)
        if record.msg == CHATTER or event in (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED):
            return False
        if event == LogEvent.PROGRESS and told["done"] < told["total"]:
            self.done = f"{told['done']} of {told['total']} done, "
            return False
        if event == LogEvent.JOB_INFO:
            name = " ".join([told["rule_name"], *dict(told["wildcards"] or {}).values()])
            where = f", log in {told['log'][0]}" if told["log"] else ""
            record.msg = f"{time.strftime('%H:%M:%S')} {self.done}now {name}{where}"
            record.event = None
        for board in BOARDS:
            board.make_room()
        return True


BOARDS = []  # one, once jobs run, where somebody may look at it


def open_board():
    if on_terminal():
        board = Board()
        os.environ[BARS] = str(board.folder)  # the jobs inherit it
        atexit.register(board.close)
        BOARDS.append(board)


if workflow.is_main_process:
    logger.addFilter(LineForEachJob())


onsuccess:
    for board in BOARDS:
        board.close()
    # here, as every job reads this file and pandas is slow
    from rglib.report.headline import headline

    said = headline(
        Path("results"),
        configuration=configuration_hash(config),
        labels={method: entry["label"] for method, entry in config["methods"].items()},
    )
    if said:
        print(f"\n{said}", file=sys.stderr)
