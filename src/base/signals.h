// Requests that reach a running job as signals.
#pragma once

namespace zebra {

// SIGTERM and SIGINT ask the job to stop, SIGUSR1 asks it to save a checkpoint and go on. The
// handlers only set flags, which the training loop reads between two steps. A second SIGINT ends
// the program at once.
void install_stop_handlers();

// True from the first SIGTERM or SIGINT on.
bool stop_requested();

// True once for each SIGUSR1 (those that arrive before they are asked for count as one).
bool take_save_request();

}  // namespace zebra
