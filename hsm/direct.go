//go:build cgo && !nopkcs11 && unix

package hsm

/*
#cgo linux LDFLAGS: -ldl

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

// The part of PKCS#11 2.40 that is called from here. The order of CK_FUNCTION_LIST is fixed by the standard.
typedef unsigned long rv;
typedef unsigned long handle;

struct mechanism {
	unsigned long mechanism;
	void *parameter;
	unsigned long length;
};

struct functions {
	unsigned char version[2];
	void *to_finalize[2];
	rv (*get_info)(void *);
	void *to_digest_final[39];
	rv (*sign_init)(handle session, struct mechanism *, handle key);
	rv (*sign)(handle session, unsigned char *data, unsigned long size, unsigned char *signature, unsigned long *signature_size);
	void *to_generate_key_pair[16];
	rv (*wrap_key)(handle session, struct mechanism *, handle kek, handle key, unsigned char *wrapped, unsigned long *wrapped_size);
};

static struct functions *load(const char *path)
{
	void *library = dlopen(path, RTLD_LAZY);
	if (library == NULL)
		return NULL;
	rv (*list)(struct functions **) = (rv (*)(struct functions **))dlsym(library, "C_GetFunctionList");
	struct functions *f = NULL;
	if (list == NULL || list(&f) != 0)
		return NULL;
	return f;
}

// shared tells whether f belongs to what others have initialized: C_GetInfo works.
static int shared(struct functions *f)
{
	unsigned char info[1024]; // CK_INFO has less than 100 bytes
	return f->get_info(info) == 0;
}

static rv sign(struct functions *f, handle session, unsigned long mechanism, void *parameter, unsigned long length, handle key,
	void *data, unsigned long size, void *signature, unsigned long *signature_size, int *begun)
{
	struct mechanism m = { mechanism, parameter, length };
	rv r = f->sign_init(session, &m, key);
	if (r != 0)
		return r;
	*begun = 1;
	return f->sign(session, data, size, signature, signature_size);
}

static rv wrap(struct functions *f, handle session, unsigned long mechanism, handle kek, handle key, void *wrapped, unsigned long *size)
{
	struct mechanism m = { mechanism, NULL, 0 };
	return f->wrap_key(session, &m, kek, key, wrapped, size);
}
*/
import "C"

import (
	"bytes"
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// direct calls the functions that miekg/pkcs11 calls twice, first for the length of the output and then for the output:
// here the buffer is long enough at once. That saves a network HSM one of three round trips for a signature, and SoftHSM2
// half the work of wrapping a key.
type direct struct{ functions *C.struct_functions }

// outputRoom is more than any output: an RSA-4096 signature has 512 bytes, its private key wraps to about 2400.
const outputRoom = 4096

// newDirect returns the functions of a module that miekg/pkcs11 has loaded and initialized, nil where they do not share
// its state: p11-kit-client returns another instance of itself for each C_GetFunctionList.
func newDirect(path string) *direct {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	f := C.load(name)
	if f == nil || C.shared(f) == 0 {
		return nil
	}
	return &direct{f}
}

// sign calls C_SignInit and C_Sign.
func (d *direct) sign(s *session, m *pkcs11.Mechanism, h pkcs11.ObjectHandle, data []byte) ([]byte, error) {
	var stub [1]byte // C_Sign of nothing is given a pointer all the same
	in, parameter := &stub[0], unsafe.Pointer(nil)
	if len(data) > 0 {
		in = &data[0]
	}
	if len(m.Parameter) > 0 {
		parameter = unsafe.Pointer(&m.Parameter[0])
	}
	out := s.output[:]
	size, begun := C.ulong(len(out)), C.int(0)
	r := C.sign(d.functions, C.handle(s.handle), C.ulong(m.Mechanism), parameter, C.ulong(len(m.Parameter)), C.handle(h),
		unsafe.Pointer(in), C.ulong(len(data)), unsafe.Pointer(&out[0]), &size, &begun)
	switch {
	case r != 0 && begun == 0:
		return nil, fmt.Errorf("C_SignInit: %w", pkcs11.Error(r))
	case r != 0:
		return nil, fmt.Errorf("C_Sign: %w", pkcs11.Error(r))
	case size > C.ulong(len(out)): // CK_UNAVAILABLE_INFORMATION, ~0, included
		return nil, fmt.Errorf("C_Sign returned a signature of %d bytes in a buffer of %d", size, len(out))
	}
	return bytes.Clone(out[:size]), nil
}

// wrap calls C_WrapKey.
func (d *direct) wrap(s *session, mech uint, kek, key pkcs11.ObjectHandle) ([]byte, error) {
	out := s.output[:]
	size := C.ulong(len(out))
	r := C.wrap(d.functions, C.handle(s.handle), C.ulong(mech), C.handle(kek), C.handle(key), unsafe.Pointer(&out[0]), &size)
	if r != 0 {
		return nil, fmt.Errorf("C_WrapKey: %w", pkcs11.Error(r))
	}
	if size > C.ulong(len(out)) {
		return nil, fmt.Errorf("C_WrapKey returned %d bytes in a buffer of %d", size, len(out))
	}
	return bytes.Clone(out[:size]), nil
}
