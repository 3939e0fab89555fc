// Requests that reach a running job: signals, and the time limit.
#pragma once

#include <string>

namespace zebra {

// SIGTERM and SIGINT ask the job to stop, SIGUSR1 asks it to save a checkpoint and go on, SIGUSR2
// asks for a trace of the next step. The handlers only set flags, which every long loop reads
// between two pieces of work. A second SIGINT ends the program at once.
void install_stop_handlers();

// From this many minutes after the call on the job is asked to stop; 0: never. Counted by a clock
// that nobody can set.
void set_time_limit(double minutes);

// True from the first SIGTERM or SIGINT on, and once the time is up.
bool stop_requested();
std::string stop_reason();  // "SIGTERM", "the time limit of 30 minutes"; "" when nothing asks

// Throws a StoppedError, "DOING: stopped by SIGTERM", when a stop is requested. For loops that keep
// nothing when they end early.
void throw_if_stopped(const std::string& doing);

// True once for each SIGUSR1 and each SIGUSR2 (those that arrive before they are asked for count
// as one).
bool take_save_request();
bool take_trace_request();

// Seconds since this process last asked whether to stop: how long its loops have been silent.
double seconds_since_asked();

}  // namespace zebra
