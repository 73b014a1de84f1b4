// Package config reads the daemon's configuration: strict YAML, in which an unknown or doubled field is refused with its
// line, and which holds no PIN unless it says insecure.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"holdfast"
)

// MaxSize is the longest configuration file, in bytes.
const MaxSize = 1 << 20

// Config is the whole configuration.
type Config struct {
	// StateDir holds the database. It must belong to the daemon's user with mode 0700, and is made when missing.
	StateDir string `yaml:"state_dir"`

	Socket   Socket    `yaml:"socket"`
	HTTP     *HTTP     `yaml:"http"`
	Resolver Resolver  `yaml:"resolver"`
	Log      Log       `yaml:"log"`
	Backends []Backend `yaml:"backends"`
}

// Socket is where local callers come in.
type Socket struct {
	Path string `yaml:"path"`

	// Mode is the socket's file mode, "0600" if empty. Who may call is decided by AllowUIDs and AllowGIDs besides.
	Mode string `yaml:"mode"`

	// AllowUIDs and AllowGIDs are the users and primary groups that may call besides root and the daemon's own user.
	AllowUIDs []uint32 `yaml:"allow_uids"`
	AllowGIDs []uint32 `yaml:"allow_gids"`
}

// HTTP is the public listener, which serves the logs of did:webvh DIDs and nothing else.
type HTTP struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string `yaml:"listen"`

	// Certificate and Key are PEM files. Without them the listener speaks plain HTTP, for a proxy in front of it.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Resolver says how DIDs of others are fetched.
type Resolver struct {
	// Pins maps host:port of a DID to the address that is dialled instead, which may then be a private one.
	Pins map[string]string `yaml:"pins"`

	// Roots is a PEM file of certificates trusted besides the system's.
	Roots string `yaml:"roots"`
}

// Log says what is logged, to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // json or console; by default console on a terminal
}

// Backend is one cryptographic module; exactly one of PKCS11, TPM2 and PIV is set.
type Backend struct {
	Name string `yaml:"name"`

	// VerifyAfterSign checks every signature before it is released; true if missing.
	VerifyAfterSign *bool `yaml:"verify_after_sign"`

	PKCS11 *PKCS11 `yaml:"pkcs11"`
	TPM2   *TPM2   `yaml:"tpm2"`
	PIV    *PIV    `yaml:"piv"`
}

// Kind returns the kind of device as holdfast.Capabilities names it: pkcs11, tpm2 or piv.
func (b *Backend) Kind() string {
	switch {
	case b.PKCS11 != nil:
		return "pkcs11"
	case b.TPM2 != nil:
		return "tpm2"
	default:
		return "piv"
	}
}

// PKCS11 is a token behind a PKCS#11 module.
type PKCS11 struct {
	Module      string `yaml:"module"`
	TokenLabel  string `yaml:"token_label"`
	Serial      string `yaml:"serial"`
	PIN         PIN    `yaml:"pin"`
	SOPIN       *PIN   `yaml:"so_pin"` // lets the wrapping key be CKA_TRUSTED
	MaxSessions int    `yaml:"max_sessions"`
	CacheSize   int    `yaml:"cache_size"` // unwrapped keys kept in the token's memory

	// SessionCopies signs with session copies of token keys: faster on SoftHSM2, but a key that another program destroys
	// goes on signing until the next login.
	SessionCopies bool `yaml:"session_copies"`

	InitString  string            `yaml:"init_string"`
	Environment map[string]string `yaml:"environment"`
	CallTimeout Duration          `yaml:"call_timeout"`
}

// TPM2 is a TPM.
type TPM2 struct {
	Device         string   `yaml:"device"`      // /dev/tpmrm0, unix:/path/to/swtpm.sock
	ExpectedEK     string   `yaml:"expected_ek"` // pins the backend to one TPM: its serial as backend show prints it
	CommandTimeout Duration `yaml:"command_timeout"`
}

// PIV is a PIV card.
type PIV struct {
	Serial        uint32            `yaml:"serial"`
	Reader        string            `yaml:"reader"`
	PIN           PIN               `yaml:"pin"`
	ManagementKey string            `yaml:"management_key"` // store (default) or card
	Environment   map[string]string `yaml:"environment"`
	IdleRelease   Duration          `yaml:"idle_release"`
}

// Duration is a time.Duration written as "500ms".
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration like 500ms or 10s", text)
	}
	*d = Duration(v)
	return nil
}

// Load reads, checks and completes the file at path. Relative paths in it are relative to its folder.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, holdfast.Errorf(holdfast.ErrNotFound, "",
			"there is no configuration file %s; docs/configuration.md has one to start from", path)
	}
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, holdfast.Errorf(holdfast.ErrInvalid, "", "%s: %w", path, err)
	}
	c.resolvePaths(filepath.Dir(path))
	return c, nil
}

// Parse reads and checks a configuration. Errors name the line.
func Parse(text []byte) (*Config, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the configuration is longer than %d bytes", MaxSize)
	}
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		// Line and column, but not the lines around them: there may be a PIN in them, and errors go into logs.
		return nil, errors.New(yaml.FormatError(err, false, false))
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}

var backendName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

func (c *Config) check() error {
	if c.StateDir == "" {
		return errors.New("state_dir is missing: name the folder for the database, for example /var/lib/holdfast")
	}
	if c.Socket.Path == "" {
		return errors.New("socket.path is missing: name the Unix socket, for example /run/holdfast/holdfastd.sock")
	}
	if _, err := c.Socket.FileMode(); err != nil {
		return err
	}
	if c.HTTP != nil {
		if c.HTTP.Listen == "" {
			return errors.New("http.listen is missing: give host:port, or leave out http")
		}
		if (c.HTTP.Certificate == "") != (c.HTTP.Key == "") {
			return errors.New("http.certificate and http.key go together")
		}
	}
	seen := map[string]bool{}
	for i := range c.Backends {
		b := &c.Backends[i]
		if err := b.check(); err != nil {
			return fmt.Errorf("backends[%d] %s: %w", i, b.Name, err)
		}
		if seen[b.Name] {
			return fmt.Errorf("backends[%d]: the name %q is used twice", i, b.Name)
		}
		seen[b.Name] = true
	}
	return c.Log.check()
}

// FileMode returns the socket's mode; one that lets everybody in is refused.
func (s Socket) FileMode() (fs.FileMode, error) {
	if s.Mode == "" {
		return 0o600, nil
	}
	m, err := strconv.ParseUint(s.Mode, 8, 32)
	if err != nil || m&^0o660 != 0 {
		return 0, fmt.Errorf(
			"socket.mode is %q: it may give read and write to the owner and the group, \"0600\" or \"0660\"", s.Mode)
	}
	return fs.FileMode(m), nil
}

func (l Log) check() error {
	switch l.Level {
	case "", "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("log.level is %q: choose debug, info, warn or error", l.Level)
	}
	switch l.Format {
	case "", "json", "console":
		return nil
	default:
		return fmt.Errorf("log.format is %q: choose json or console", l.Format)
	}
}

func (b *Backend) check() error {
	if !backendName.MatchString(b.Name) {
		return fmt.Errorf("name is %q: use 1 to 32 lower-case letters, digits, '.', '_' and '-'", b.Name)
	}
	kinds := 0
	for _, set := range []bool{b.PKCS11 != nil, b.TPM2 != nil, b.PIV != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("say which kind of device it is: exactly one of pkcs11, tpm2 and piv")
	}
	switch {
	case b.PKCS11 != nil:
		return b.PKCS11.check()
	case b.TPM2 != nil:
		if b.TPM2.Device == "" {
			return errors.New("tpm2.device is missing: /dev/tpmrm0 on most machines")
		}
	case b.PIV != nil:
		switch b.PIV.ManagementKey {
		case "", "store", "card":
		default:
			return fmt.Errorf("piv.management_key is %q: choose store (in the daemon's database) or card (on the card, behind the PIN)", b.PIV.ManagementKey)
		}
		return b.PIV.PIN.check("piv.pin")
	}
	return nil
}

func (p *PKCS11) check() error {
	if p.Module == "" {
		return errors.New("pkcs11.module is missing: the path of the vendor's PKCS#11 library")
	}
	if p.TokenLabel == "" && p.Serial == "" {
		return errors.New("pkcs11.token_label or pkcs11.serial is missing: slots are not told by number, which changes")
	}
	if p.MaxSessions < 0 || p.CacheSize < 0 {
		return errors.New("pkcs11.max_sessions and pkcs11.cache_size are not negative")
	}
	if p.SOPIN != nil {
		if err := p.SOPIN.check("pkcs11.so_pin"); err != nil {
			return err
		}
	}
	return p.PIN.check("pkcs11.pin")
}

// resolvePaths makes file names absolute.
func (c *Config) resolvePaths(dir string) {
	paths := []*string{&c.StateDir, &c.Socket.Path, &c.Resolver.Roots}
	if c.HTTP != nil {
		paths = append(paths, &c.HTTP.Certificate, &c.HTTP.Key)
	}
	for i := range c.Backends {
		b := &c.Backends[i]
		if b.PKCS11 != nil {
			paths = append(paths, &b.PKCS11.Module, &b.PKCS11.PIN.File)
			if b.PKCS11.SOPIN != nil {
				paths = append(paths, &b.PKCS11.SOPIN.File)
			}
		}
		if b.PIV != nil {
			paths = append(paths, &b.PIV.PIN.File)
		}
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for _, b := range c.Backends {
		if b.TPM2 == nil {
			continue
		}
		if path, isSocket := strings.CutPrefix(b.TPM2.Device, "unix:"); isSocket && path != "" && !filepath.IsAbs(path) {
			b.TPM2.Device = "unix:" + filepath.Join(dir, path)
		}
	}
}
