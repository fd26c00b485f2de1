//go:build !linux

package upgrade_test

import (
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// onLoops has nothing to run where there are no loops.
func onLoops(*testing.T, string, func() *upgrade.Proxy, func(*testing.T, timed)) {}
