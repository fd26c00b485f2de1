//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// A peer is what is measured.
type peer struct {
	name    string
	does    string
	command func(args ...string) *exec.Cmd // of a role, with the arguments of role.Main
	as      string                         // the first of them
	hub     *dialect                       // nil: it carries messages, and has no members
}

// peers returns those that are installed and that the list only names, a line about each
// that isn't installed, and an error if there is none. builds are other builds of this
// program.
func peers(ctx context.Context, dir string, builds []string, only string) (all []*peer, missing []string, err error) {
	folder, err := source(ctx)
	if err != nil {
		return nil, nil, err
	}
	if node, version, err := nodeProgram(folder); err != nil {
		missing = append(missing, fmt.Sprintf("Socket.IO is left out: %v", err))
	} else {
		all = append(all,
			&peer{name: "Socket.IO", does: "@socket.io/redis-emitter to nodes with @socket.io/redis-adapter; " + version, command: node, as: "socket.io"},
			&peer{name: "Socket.IO streams", does: "nodes with @socket.io/redis-streams-adapter, the publisher too, as there is no emitter for it", command: node, as: "streams"},
			&peer{name: "Socket.IO", does: "socket.io over WebSockets", command: node, as: "members", hub: &socketIO},
		)
	}
	if only != "" && !strings.Contains(strings.ToLower(only), "centrifuge") {
		// building it takes a while
	} else if centrifuge, version, err := centrifugeProgram(ctx, folder, dir); err != nil {
		missing = append(missing, fmt.Sprintf("centrifuge is left out: %v", err))
	} else {
		all = append(all,
			&peer{name: "centrifuge", does: "nodes with the Redis broker; " + version, command: centrifuge, as: "redis"},
			&peer{name: "centrifuge history", does: "the same with a history of the channel", command: centrifuge, as: "history"},
			&peer{name: "centrifuge", does: "JSON over WebSockets", command: centrifuge, as: "members", hub: &centrifugeJSON},
		)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	for i, file := range append([]string{self}, builds...) {
		name := "Limpet"
		if i > 0 {
			name += " " + file
		}
		program := func(args ...string) *exec.Cmd {
			cmd := exec.Command(file)
			cmd.Env = append(os.Environ(), roleOf+"="+strings.Join(args, " "))
			return cmd
		}
		all = append(all,
			&peer{name: name + " Redis", does: "bus.Redis", command: program, as: "redis"},
			&peer{name: name + " Streams", does: "bus.Streams", command: program, as: "streams"},
			&peer{name: name + " hub", does: "hub.Hub over bus.Redis", command: program, as: "hub"},
			&peer{name: name + " Socket.IO", does: "socketio.Emitter to socketio.Bridge, with the protocol of @socket.io/redis-adapter", command: program, as: "emitter"},
			&peer{name: name + " hub", does: "hub.Handler", command: program, as: "members", hub: &plain},
		)
	}
	all, err = chosen(all, only)
	return all, missing, err
}

// chosen returns those of all that a list names.
func chosen(all []*peer, list string) ([]*peer, error) {
	if list == "" {
		return all, nil
	}
	var some []*peer
	for name := range strings.SplitSeq(list, ",") {
		before := len(some)
		for _, p := range all {
			if strings.EqualFold(p.name, strings.TrimSpace(name)) { // messages, and members
				some = append(some, p)
			}
		}
		if len(some) == before {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			return nil, fmt.Errorf("no peer %q is installed, there are: %s", name, strings.Join(slices.Compact(names), ", "))
		}
	}
	return some, nil
}

// source returns the folder of this package.
func source(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/limpet-go/limpet/internal/busbench").Output()
	if err != nil {
		return "", fmt.Errorf("run this in the repository: go list: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func nodeProgram(folder string) (program func(args ...string) *exec.Cmd, version string, err error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, "", err
	}
	packages := filepath.Join(folder, "../interop/testdata/v4")
	said, _ := exec.Command(node, "--version").Output()
	version = "Node " + strings.TrimSpace(string(said))
	for _, name := range []string{"socket.io", "@socket.io/redis-adapter", "@socket.io/redis-emitter", "@socket.io/redis-streams-adapter", "redis"} {
		var p struct{ Version string }
		text, err := os.ReadFile(filepath.Join(packages, "node_modules", name, "package.json"))
		if err == nil {
			err = json.Unmarshal(text, &p)
		}
		if err != nil {
			return nil, "", fmt.Errorf("no package %s, run npm ci in %s", name, "internal/interop/testdata/v4")
		}
		version += ", " + name + " " + p.Version
	}
	return func(args ...string) *exec.Cmd {
		return exec.Command(node, append([]string{filepath.Join(folder, "node/role.js"), packages}, args...)...)
	}, version, nil
}

func centrifugeProgram(ctx context.Context, folder, dir string) (program func(args ...string) *exec.Cmd, version string, err error) {
	file := filepath.Join(dir, "centrifuge")
	build := exec.CommandContext(ctx, "go", "build", "-o", file, ".")
	build.Dir = filepath.Join(folder, "centrifuge")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("build it: %w: %s", err, strings.Join(strings.Fields(string(said)), " "))
	}
	version = "version unknown"
	list := exec.CommandContext(ctx, "go", "list", "-m", "github.com/centrifugal/centrifuge")
	list.Dir = build.Dir
	if said, err := list.Output(); err == nil {
		version = strings.TrimSpace(strings.TrimPrefix(string(said), "github.com/centrifugal/"))
	}
	return func(args ...string) *exec.Cmd { return exec.Command(file, args...) }, version, nil
}

// modules returns the versions that this program is built with.
func modules() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/redis/go-redis/v9" {
			return "go-redis " + m.Version
		}
	}
	return ""
}
