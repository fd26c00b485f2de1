package http1

// A activity is what the other end of a connection did while nobody was reading.
type activity int

const (
	silent activity = iota
	spoke
	closed
	hidden // the kernel can't be asked
)
