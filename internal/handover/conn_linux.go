package handover

import (
	"errors"
	"io"
	"syscall"
)

// send writes a message. Its descriptors stay the caller's, too.
func (c *Conn) send(m message) error {
	if err := c.conn.SetWriteDeadline(c.until); err != nil {
		return err
	}
	b := append(m.header(), m.payload...)
	var rights []byte
	if len(m.files) > 0 {
		rights = syscall.UnixRights(m.files...)
	}
	n, _, err := c.conn.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.conn.Write(b[n:])
	}
	return err
}

// fill reads until b is full, and appends the descriptors that come with it to files. It
// returns io.EOF if the end comes before the first byte.
func (c *Conn) fill(b []byte, files []int) ([]int, error) {
	oob := make([]byte, syscall.CmsgSpace(4*maxFiles))
	for at := 0; at < len(b); {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(b[at:], oob)
		files = append(files, descriptors(oob[:oobn])...)
		end := errors.Is(err, io.EOF) || err == nil && n == 0
		switch {
		case end && at > 0:
			return files, io.ErrUnexpectedEOF
		case end:
			return files, io.EOF
		case err != nil:
			return files, err
		case flags&syscall.MSG_CTRUNC != 0:
			return files, errors.New("there was no room for a descriptor")
		}
		at += n
	}
	return files, nil
}

// descriptors returns those in a control message.
func descriptors(oob []byte) (files []int) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			files = append(files, fds...)
		}
	}
	return files
}

func closeAll(files []int) {
	for _, fd := range files {
		syscall.Close(fd)
	}
}
