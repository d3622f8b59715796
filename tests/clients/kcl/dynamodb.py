"""DynamoDB as moto has it, in memory, on a port that the system chooses; ends in good order with SIGTERM."""

import signal

from moto.server import ThreadedMotoServer

END = {signal.SIGINT, signal.SIGTERM}

# Before there are threads, so that none of them takes the signal.
signal.pthread_sigmask(signal.SIG_BLOCK, END)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("listening on http://%s:%d" % server.get_host_and_port(), flush=True)
signal.sigwait(END)
server.stop()
