# shellcheck shell=sh disable=SC2154
# Sourced by build-macos.sh on Linux: zig as C compiler and linker for $target, and stubs of Apple's frameworks for the
# linker. Sets cargo's variables for them.

tools=$out/macos-tools
mkdir -p "$tools/bin" "$tools/frameworks"
tools=$(cd "$tools" && pwd)
if [ ! -x "$tools/venv/bin/python" ]; then
    python3 -m venv "$tools/venv"
fi
"$tools/venv/bin/python" -c 'import ziglang' 2>/dev/null ||
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check 'ziglang==0.15.2' >&2

# Named cc: cargo infers the linker's flavour from its name. cc-rs and rustc pass Apple's names of target and version;
# zig has its own.
cat >"$tools/bin/cc" <<WRAPPER
#!/bin/sh
for argument; do
    shift
    case \$argument in
        --target=* | -mmacosx-version-min=* | -mmacos-version-min=*) ;;
        *) set -- "\$@" "\$argument" ;;
    esac
done
exec "$tools/venv/bin/python" -m ziglang cc -target ${target%%-*}-macos.$MACOSX_DEPLOYMENT_TARGET \
    -F "$tools/frameworks" -L "$tools/frameworks" "\$@"
WRAPPER
chmod +x "$tools/bin/cc"

# A stub: a framework's path on a Mac, and the symbols that are used.
stub() {
    file=$1
    install_name=$2
    shift 2
    mkdir -p "$(dirname "$file")"
    {
        printf -- '--- !tapi-tbd\ntbd-version: 4\ntargets: [ %s-macos ]\n' "$(echo "${target%%-*}" | sed 's/aarch64/arm64/')"
        printf "install-name: '%s'\nexports:\n  - targets: [ %s-macos ]\n    symbols: [ " "$install_name" \
            "$(echo "${target%%-*}" | sed 's/aarch64/arm64/')"
        printf '%s, ' "$@" | sed 's/, $//'
        printf ' ]\n...\n'
    } >"$file"
}
versioned=Versions/A
stub "$tools/frameworks/Security.framework/Security.tbd" /System/Library/Frameworks/Security.framework/$versioned/Security \
    _SecCertificateCreateWithData _SecPolicyCreateSSL _SecTrustCreateWithCertificates _SecTrustSetPolicies \
    _SecTrustSetAnchorCertificates _SecTrustSetAnchorCertificatesOnly _SecTrustSetVerifyDate _SecTrustEvaluateWithError \
    _SecTrustSetOCSPResponse _SecTrustSetNetworkFetchAllowed _SecPolicyCreateRevocation _SecTrustGetTrustResult \
    _SecCopyErrorMessageString _SecTrustSettingsCopyCertificates _SecTrustSettingsCopyTrustSettings \
    _SecCertificateCopyData _SecCertificateCopySubjectSummary _SecTrustCopyCertificateChain _SecCertificateGetTypeID _SecTrustGetTypeID _SecPolicyGetTypeID
stub "$tools/frameworks/CoreFoundation.framework/CoreFoundation.tbd" \
    /System/Library/Frameworks/CoreFoundation.framework/$versioned/CoreFoundation \
    _CFRelease _CFRetain _CFArrayCreate _CFArrayGetCount _CFArrayGetValueAtIndex _CFArrayGetTypeID _CFDataCreate \
    _CFDataGetBytePtr _CFDataGetLength _CFDataGetTypeID _CFDateCreate _CFErrorCopyDescription _CFErrorGetCode \
    _CFErrorGetDomain _CFErrorGetTypeID _CFStringCreateWithBytes _CFStringCreateWithBytesNoCopy _CFStringGetBytes \
    _CFStringGetCString _CFStringGetCStringPtr _CFStringGetLength _CFStringGetTypeID _CFDictionaryGetValueIfPresent \
    _CFDictionaryGetTypeID _CFNumberGetValue _CFNumberGetTypeID _CFGetTypeID _CFEqual _CFHash _CFCopyDescription \
    _CFShow _CFDateGetAbsoluteTime _CFDateGetTypeID _kCFAllocatorDefault _kCFAllocatorNull _kCFTypeArrayCallBacks \
    _kCFTypeDictionaryKeyCallBacks _kCFTypeDictionaryValueCallBacks _kCFBooleanTrue _kCFBooleanFalse _kCFAbsoluteTimeIntervalSince1970
stub "$tools/frameworks/libiconv.tbd" /usr/lib/libiconv.2.dylib _iconv _iconv_open _iconv_close

name=$(echo "$target" | tr a-z- A-Z_)
export "CARGO_TARGET_${name}_LINKER=$tools/bin/cc"
export "CC_$(echo "$target" | tr - _)=$tools/bin/cc" "AR_$(echo "$target" | tr - _)=ar"
