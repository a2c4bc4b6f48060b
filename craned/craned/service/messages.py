"""The codec between craned's own values and protobuf; what other programs share is in `cranehooks.wire`."""

from crane.hooks.v1 import craned_service_pb2 as stdio_pb
from crane.hooks.v1 import ctld_service_pb2 as ctld_pb
from craned.attempts.effects import ReportProlog, ReportReleased, ReportStepEnded, ReportStepStarted
from craned.attempts.reports import Report, ReportHook
from craned.steps.stdio import Output, Stream
from cranehooks import wire
from cranehooks.model.ids import TaskId

_STREAMS = {
    Stream.STDOUT: stdio_pb.OUTPUT_STREAM_STDOUT,
    Stream.STDERR: stdio_pb.OUTPUT_STREAM_STDERR,
}
_STREAMS_BACK = {value: stream for stream, value in _STREAMS.items()}


def output_to_wire(output: Output) -> stdio_pb.TaskOutput:
    return stdio_pb.TaskOutput(task_id=output.task_id, stream=_STREAMS[output.stream], data=output.data)


def output_from_wire(message: stdio_pb.TaskOutput) -> Output:
    """The output.

    Raises:
        wire.WireError: of no stream that is known.
    """
    stream = _STREAMS_BACK.get(message.stream)
    if stream is None:
        text = f"output of unknown stream {message.stream}"
        raise wire.WireError(text)
    return Output(TaskId(message.task_id), stream, message.data)


def report_to_wire(report: Report) -> ctld_pb.NodeReport:
    message = ctld_pb.NodeReport(report_id=report.report_id, time=wire.timestamp(report.at))
    job_id, attempt = report.key.job_id, report.key.attempt
    match report.content:
        case ReportProlog(run):
            message.prolog_ended.CopyFrom(ctld_pb.PrologEnded(job_id=job_id, attempt=attempt, run=wire.hook_run_to_wire(run)))
        case ReportStepStarted(step_id):
            message.step_started.CopyFrom(ctld_pb.StepStarted(job_id=job_id, attempt=attempt, step_id=step_id))
        case ReportStepEnded(step_id, tasks, reason, usage):
            message.step_ended.CopyFrom(
                ctld_pb.StepEnded(
                    job_id=job_id,
                    attempt=attempt,
                    step_id=step_id,
                    tasks=[wire.task_end_to_wire(task) for task in tasks],
                    reason=reason,
                    usage=None if usage is None else wire.usage_to_wire(usage),
                )
            )
        case ReportReleased(epilog, usage):
            message.job_released.CopyFrom(
                ctld_pb.JobReleased(
                    job_id=job_id,
                    attempt=attempt,
                    epilog=None if epilog is None else wire.hook_run_to_wire(epilog),
                    usage=None if usage is None else wire.usage_to_wire(usage),
                )
            )
        case ReportHook(run):
            message.hook_ended.CopyFrom(ctld_pb.HookEnded(run=wire.hook_run_to_wire(run)))
    return message
