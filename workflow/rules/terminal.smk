# What the terminal and Snakemake's own log say while a run goes on: a line for each job as it starts,
# with its log, and a line with how many are done. What an error is remains as long as it is. A dry
# run says all that Snakemake knows, such as why a job would run.
import logging
import sys
import time
from pathlib import Path

from snakemake.logging import get_event, logger
from snakemake_interface_logger_plugins.common import LogEvent

CHATTER = "Select jobs to execute..."


class LineForEachJob(logging.Filter):
    def filter(self, record):
        if workflow.dryrun:  # is known only once the rules are read
            return True
        event, told = get_event(record), vars(record)
        if event in (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED):
            return False
        if event == LogEvent.JOB_INFO:
            name = " ".join([told["rule_name"], *dict(told["wildcards"] or {}).values()])
            where = f", log in {told['log'][0]}" if told["log"] else ""
            record.msg, record.event = f"{time.strftime('%H:%M:%S')} {name}{where}", None
        return record.msg != CHATTER


if workflow.is_main_process:
    logger.addFilter(LineForEachJob())


onsuccess:
    # here, as every job reads this file and pandas is slow
    from rglib.report.headline import headline

    said = headline(
        Path("results"),
        configuration=configuration_hash(config),
        labels={method: entry["label"] for method, entry in config["methods"].items()},
    )
    if said:
        print(f"\n{said}", file=sys.stderr)
