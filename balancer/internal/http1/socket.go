package http1

// A sight is what the other end of a connection did while nobody was reading.
type sight int

const (
	silent sight = iota
	spoke
	closed
	hidden // the kernel can't be asked
)
