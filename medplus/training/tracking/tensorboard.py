"""TensorBoard: event files in the run's folder; see them with ``tensorboard --logdir runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medplus.training.tracking.tracker import Status, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardTracker(Tracker):
    """Writes torch's event files, and goes on where a killed process was."""

    _writer: SummaryWriter | None = None

    def start(self) -> None:
        """Begin with the first metrics, which say where the run goes on."""

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if self._writer is None:
            self._writer = self._open(metrics, step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _open(self, metrics: dict[str, float], step: int) -> SummaryWriter:
        from torch.utils.tensorboard.summary import hparams
        from torch.utils.tensorboard.writer import SummaryWriter

        # What was logged after the state that the run goes on from happens once more: from this
        # step on, earlier files are to be ignored.
        place = str(self.folder / "tensorboard")
        writer = SummaryWriter(place, purge_step=step)
        events = writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in hparams(self.parameters, metrics):  # type: ignore[no-untyped-call]
            events.add_summary(summary, step)
        return writer

    def finish(self, status: Status) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()


tracker = TensorBoardTracker
