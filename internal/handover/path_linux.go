package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// Open connects to the process that listens at path. If there is none, it listens there: then
// conn is nil and l isn't. Two processes that call it at the same time don't both listen. The
// socket is for processes of the same user only.
func Open(ctx context.Context, path string) (conn *Conn, l *net.UnixListener, err error) {
	if path == "" {
		return nil, nil, errors.New("no path was given: name a file that isn't there yet")
	}
	if len(path) > maxPath {
		return nil, nil, fmt.Errorf("the path has %d bytes, and that of a socket has %d bytes at most", len(path), maxPath)
	}
	unlock, err := lock(ctx, path+".lock")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: make the folder, as RuntimeDirectory= of systemd does", err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, nil, fmt.Errorf("%s is no socket: name a file that isn't there yet", path)
	default:
		conn, err := dial(ctx, path)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, nil, err
		}
		if err := os.Remove(path); err != nil { // of a process that has ended
			return nil, nil, err
		}
	}
	l, err = listen(ctx, path)
	return nil, l, err
}

// maxPath is the length of the longest path that a socket can have: see unix(7).
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// lock locks a file until unlock is called. Only this user can open it. The folder wouldn't do:
// any user who may read it could lock it, and hold up all that start. The file stays.
func lock(ctx context.Context, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%s is locked by another process that starts: %w", path, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func dial(ctx context.Context, path string) (*Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	c := conn.(*net.UnixConn)
	if err := SameUser(c); err != nil {
		c.Close()
		return nil, err
	}
	return NewConn(c), nil
}

// listen listens on a socket that has its mode from the beginning: Linux gives it that of the
// descriptor.
func listen(ctx context.Context, path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if failed := raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); failed != nil {
			return failed
		}
		return err
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false) // a successor may have it: see Remove
	return unix, nil
}

// SameUser returns an error unless the process at the other end of conn is of the same user.
func SameUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	if failed := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); failed != nil {
		return failed
	}
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("the other process is of user %d, and this one of %d", peer.Uid, os.Geteuid())
	}
	return nil
}

// Room reports whether this process may open so many files more, and some beside them.
func Room(files int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil // it isn't known then
	}
	const beside = 64
	if need := uint64(len(open) + files + beside); need > limit.Cur {
		return fmt.Errorf("there is no room for %d descriptors beside the %d that are open: raise the limit of open files (RLIMIT_NOFILE, LimitNOFILE= in systemd) from %d to at least %d", files, len(open), limit.Cur, need)
	}
	return nil
}

// Duplicate returns another descriptor of what c has open.
func Duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	if failed := raw.Control(func(old uintptr) { fd, err = sockets.Duplicate(old) }); failed != nil {
		return -1, failed
	}
	return fd, err
}

// Listener returns a listener on a descriptor, which it takes over. That doesn't block, so that
// os.File never makes it block, not even for a moment: processes share that.
func Listener(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close() // FileListener has a copy
	return net.FileListener(f)
}

// CloseAll closes descriptors.
func CloseAll(files []int) { closeAll(files) }
