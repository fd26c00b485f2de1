package sockets

import (
	"cmp"
	"errors"
	"io"
	"math"
	"os"
	"syscall"
)

// ReadFrom implements [io.ReaderFrom], so that net/http's server sends a file, or the part of
// one that an [io.LimitedReader] limits, by sendfile.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	src, limited := r.(*io.LimitedReader)
	if !limited {
		src = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	var sent int64
	if f, ok := src.R.(*os.File); ok && src.N > 0 {
		var err error
		sent, err = c.sendFile(f, src.N)
		src.N -= sent
		if err != nil {
			return sent, err
		}
	}
	n, err := io.Copy(struct{ io.Writer }{c}, src) // all, or what sendfile doesn't do; or the end
	return sent + n, err
}

// sendFile sends up to n bytes of a regular file from where it is. It sends nothing of any
// other, for which sendfile might wait.
func (c *Conn) sendFile(f *os.File, n int64) (sent int64, err error) {
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, nil
	}
	const most = 1 << 20 // a call may have to read all of it from a disk
	var failure, waiting error
	err = raw.Control(func(from uintptr) {
		waiting = c.use(&c.out, syscall.EPOLLOUT, func(to uintptr) (done bool) {
			for sent < n {
				m, err := syscall.Sendfile(int(to), int(from), nil, int(min(n-sent, most)))
				sent += int64(max(m, 0))
				switch {
				case err == syscall.EAGAIN:
					return false
				case err == syscall.EINTR:
				case err != nil, m == 0:
					failure = os.NewSyscallError("sendfile", err)
					return true
				}
			}
			return true
		})
	})
	switch err = errors.Join(err, waiting); {
	case err != nil: // of the file, or the socket while it was full
		return sent, c.failed("readfrom", cmp.Or(waiting, err))
	case failure != nil && sent > 0:
		return sent, c.failed("readfrom", failure)
	}
	return sent, nil // or the file system has no sendfile, or the socket is broken: a Write tells
}
