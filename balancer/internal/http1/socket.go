package http1

// An activity is what the other end of a connection did while nobody was reading.
type activity int

const (
	silent activity = iota // nothing
	spoke                  // it sent bytes, which can be read
	closed                 // it closed the connection or reset it
	hidden                 // unknown: the kernel can't be asked
)
