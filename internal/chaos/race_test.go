//go:build race && unix

package chaos

const raceEnabled = true
