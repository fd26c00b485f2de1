//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/limpet-go/limpet/internal/busbench/role"
	"github.com/limpet-go/limpet/internal/meter"
)

// A part is a running role.
type part struct {
	*meter.Process
	in    *json.Encoder
	out   *json.Decoder
	hello role.Report
	total int // messages that were sent to a subscriber
}

// start starts a role of a peer, and waits until it is there.
func (p *peer) start(args ...string) (*part, error) {
	cmd := p.command(append([]string{p.as}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	process, err := meter.Start(cmd, nil)
	if err != nil {
		return nil, err
	}
	s := &part{Process: process, in: json.NewEncoder(in), out: json.NewDecoder(out)}
	if s.hello, err = s.answer(); err == nil {
		err = s.Count()
	}
	if err != nil {
		s.Stop()
		return nil, fmt.Errorf("%s, %v: %w", p.name, args, err)
	}
	return s, nil
}

// ask has the role carry out a command.
func (s *part) ask(c role.Command) (role.Report, error) {
	if err := s.in.Encode(c); err != nil {
		return role.Report{}, err
	}
	return s.answer()
}

// answer waits for a line, but not for ever: a role that hangs is stopped.
func (s *part) answer() (r role.Report, err error) {
	late := time.AfterFunc(4*role.Patience, s.Stop)
	defer late.Stop()
	if err := s.out.Decode(&r); err != nil {
		s.Stop()
		return r, fmt.Errorf("has ended: %w: %.2000s", err, s.Said)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// startRedis starts a redis-server for a peer, that cuts nobody off for being slow.
func startRedis(dir string) (server *meter.Process, addr string, err error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", err
	}
	port, err := meter.FreePort()
	if err != nil {
		return nil, "", err
	}
	server, err = meter.Start(exec.Command(program, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--dir", dir, "--client-output-buffer-limit", "pubsub 0 0 0"), nil)
	if err == nil {
		if err = server.Count(); err != nil {
			server.Stop()
		}
	}
	return server, fmt.Sprintf("127.0.0.1:%d", port), err
}
