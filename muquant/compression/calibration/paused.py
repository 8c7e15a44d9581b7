"""A call of a module that stops before products with its weights, and goes on when it is told to."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from muquant.compression.calibration.collect import run_samples
from muquant.compression.calibration.operators import Product
from muquant.compression.calibration.watch import Watch
from muquant.models.calls import Inputs


class PausedCall:
    """One call of a module, whose code runs in a thread of its own, so that it can be left where it is.

    Only one of the two threads runs at a time, and operators are computed by the one that tells the call to
    go on: many calls keep no more threads of operators, and no more freed memory, than one. Each call draws
    the same random numbers.

    Args:
        module: in evaluation mode, on the CPU. Weights of it may be changed in place while the call waits.
        batch: its inputs.
        stops: whether to wait before a product.
    """

    def __init__(self, module: nn.Module, batch: Inputs, stops: Callable[[Product], bool]) -> None:
        shared = {id(each): each for each in (*module.parameters(), *module.buffers())}
        self._module = copy.deepcopy(module, shared)  # what it keeps in itself is of this call alone
        self._batch, self._stops = batch, stops
        self._turn, self._back = threading.Lock(), threading.Lock()
        for lock in (self._turn, self._back):
            lock.acquire()
        self._asked: Callable[[], Any] | None = None
        self._answer: Any = None
        self._error: BaseException | None = None
        self._over = False
        self.product: Product | None = None
        """That before which it waits; None before it begins, and once it has ended."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._random = torch.get_rng_state()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Run up to the next product that it stops at, or to the end.

        Raises:
            InputError: the module does not run on the batch.
        """
        if self._over:
            return
        self.product = None
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.set_rng_state(self._random)
            self._switch()
            while self._asked is not None:
                asked, self._asked = self._asked, None
                try:
                    self._answer = asked()
                except Exception as error:  # the module may catch it
                    self._error = error
                del asked
                self._switch()
            self._random = torch.get_rng_state()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the call where it is."""
        if not self._over:
            self._over = True
            self._switch()
        self._thread.join()

    def _switch(self) -> None:
        """Let the other thread run until it waits or ends."""
        self._turn.release()
        self._back.acquire()

    def _run(self) -> None:
        try:
            self._wait()
            with torch.no_grad(), Watch(self._take, self._compute):
                run_samples(self._module, self._batch)
        except _Closed:
            pass
        except BaseException as error:  # is raised where the call was told to go on
            self._error = error
        finally:
            self._over, self.product = True, None
            self._back.release()

    def _take(self, product: Product) -> None:
        if self._stops(product):
            self.product = product
            self._yield()

    def _compute(self, operator: Callable[[], Any]) -> Any:
        self._asked = operator
        self._yield()
        (answer, self._answer), (error, self._error) = (self._answer, None), (self._error, None)
        if error is not None:
            raise error
        return answer

    def _yield(self) -> None:
        self._back.release()
        self._wait()

    def _wait(self) -> None:
        self._turn.acquire()
        if self._over:
            raise _Closed


class _Closed(BaseException):
    """Ends a call; no module catches it."""
