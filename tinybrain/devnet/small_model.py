"""A small model behind an API that tells its log-probabilities, to try one with: SmolLM2-135M.

`python -m tinybrain.devnet.small_model PORT` serves it on loopback, free of charge, until it is
ended. Then `SMALL_MODEL_URL=http://127.0.0.1:PORT/v1 SMALL_MODEL_NAME=smollm2-135m-instruct`.
"""

import signal
import sys

from tinybrain.devnet.smollm2 import SmolLM2, find_weights

if __name__ == "__main__":
    ended_by = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended_by)  # before there are threads, which inherit it
    model = SmolLM2(find_weights(), port=int(sys.argv[1]))
    signal.sigwait(ended_by)
