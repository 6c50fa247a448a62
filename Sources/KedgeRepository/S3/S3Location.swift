// Where a repository lies in an object store, and how its URLs are made.

package import KedgeCore

/// A bucket, or a part of one.
package struct S3Location: Hashable, Sendable {
    /// Where the bucket's name stands in a URL.
    package enum URIStyle: String, Hashable, Sendable, CaseIterable {
        /// `https://endpoint/bucket/name`
        case path
        /// `https://bucket.endpoint/name`
        case host
    }

    package let scheme: String
    /// Host and, where it is given, port.
    package let authority: String
    package let region: String
    package let bucket: String
    /// What stands in front of every object's name; empty, or without "/" at either end.
    package let prefix: String
    package let uriStyle: URIStyle

    /// `endpoint` is `https://host[:port]` (or `http://`, for a store on a network that is trusted).
    ///
    /// Throws `configuration` for what can't be an endpoint, a bucket or a prefix.
    package init(
        endpoint: String, region: String, bucket: String, prefix: String, uriStyle: URIStyle
    ) throws(KedgeError) {
        guard let (scheme, authority) = S3Location.parse(endpoint) else {
            // Some clients take credentials in the URL: what stands there is never shown.
            throw KedgeError(
                .configuration, "cannot use what is given as the endpoint of an object store",
                hint:
                    "Write it as https://HOST or https://HOST:PORT, without a path, a user or a password.  The bucket "
                    + "has a key of its own, and credentials belong into files (access-key-id-file, "
                    + "secret-access-key-file).")
        }
        // Rules of bucket names: Amazon S3 user guide, "General purpose bucket naming rules"; other stores allow "_".
        guard (3...63).contains(bucket.utf8.count), bucket.utf8.allSatisfy({ isBucketByte($0) }) else {
            throw KedgeError(
                .configuration, "cannot use \"\(bucket)\" as the name of a bucket",
                hint: "It has 3 to 63 of the characters a-z A-Z 0-9 . _ -")
        }
        guard prefix.isEmpty || ObjectName(prefix) != nil else {
            throw KedgeError(
                .configuration, "cannot use \"\(prefix)\" as the prefix of a repository",
                hint: "It has the characters A-Z a-z 0-9 . _ - and single slashes inside, none at its ends.")
        }
        self.scheme = scheme
        self.authority = authority
        self.region = region
        self.bucket = bucket
        self.prefix = prefix
        self.uriStyle = uriStyle
    }

    /// What the request's `Host` header says.
    var host: String { uriStyle == .path ? authority : "\(bucket).\(authority)" }

    /// The escaped path of an object, nil for the bucket itself.
    func path(of key: String?) -> String {
        let inside = key.map(S3Escaping.path) ?? ""
        guard uriStyle == .path else { return "/" + inside }
        return key == nil ? "/\(bucket)" : "/\(bucket)/\(inside)"
    }

    /// The store's name for an object.
    func key(of name: ObjectName) -> String { prefix.isEmpty ? name.text : "\(prefix)/\(name.text)" }

    /// The store's name for a directory, with "/" at the end. Nil: the whole repository, "" where it has no prefix.
    func directoryKey(_ directory: ObjectName?) -> String {
        guard let directory else { return prefix.isEmpty ? "" : prefix + "/" }
        return key(of: directory) + "/"
    }

    /// The object that the store calls `key`. Nil for what is none of ours.
    func name(of key: String) -> ObjectName? {
        guard !prefix.isEmpty else { return ObjectName(key) }
        guard key.hasPrefix(prefix + "/") else { return nil }
        return ObjectName(key.dropFirst(prefix.count + 1))
    }

    /// This place in another region, as a store's redirect says. Nil for a word that names no region: it becomes part
    /// of the host's name, and whoever answers could send requests anywhere.
    func moved(to region: String) -> S3Location? {
        guard (1...63).contains(region.utf8.count), region.utf8.allSatisfy(isRegionByte) else { return nil }
        return S3Location(copying: self, region: region)
    }

    private init(copying other: S3Location, region: String) {
        scheme = other.scheme
        // Amazon's own endpoints carry the region in their names.
        authority = other.authority.replacingRegion(other.region, with: region)
        self.region = region
        bucket = other.bucket
        prefix = other.prefix
        uriStyle = other.uriStyle
    }

    private static func parse(_ endpoint: String) -> (scheme: String, authority: String)? {
        for scheme in ["https", "http"] where endpoint.hasPrefix(scheme + "://") {
            var authority = endpoint.dropFirst(scheme.count + 3)
            if authority.last == "/" { authority.removeLast() }
            guard !authority.isEmpty, authority.utf8.allSatisfy({ isAuthorityByte($0) }) else { return nil }
            return (scheme, String(authority))
        }
        return nil
    }
}

extension S3Location: CustomStringConvertible {
    /// For messages.
    package var description: String {
        "s3://\(bucket)\(prefix.isEmpty ? "" : "/" + prefix) at \(scheme)://\(authority)"
    }
}

/// Escaping as signatures ask for it: every byte but A–Z a–z 0–9 - . _ ~ as %XX (Amazon S3 API reference, "Signature
/// Calculations for the Authorization Header").
package enum S3Escaping {
    package static func text(_ text: String) -> String { escaped(text, keeping: nil) }

    /// The same, but slashes stay.
    static func path(_ text: String) -> String { escaped(text, keeping: 0x2F) }

    private static func escaped(_ text: String, keeping kept: UInt8?) -> String {
        var bytes: [UInt8] = []
        let digits = Array("0123456789ABCDEF".utf8)
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: bytes.append(byte)
            case kept: bytes.append(byte)
            default: bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The text whose escaped form this is; "+" stays what it is. Nil where an escape is broken.
    package static func unescaped(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == 0x25 else {
                bytes.append(byte)
                continue
            }
            guard let value = [UInt8](hex: String(decoding: rest.prefix(2), as: UTF8.self)), value.count == 1 else {
                return nil
            }
            bytes += value
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

extension String {
    /// This host name with the component `old` replaced. Unchanged where there is no such component.
    fileprivate func replacingRegion(_ old: String, with new: String) -> String {
        split(separator: ".", omittingEmptySubsequences: false).map { $0 == old ? new : String($0) }
            .joined(separator: ".")
    }
}

private func isBucketByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
    default: false
    }
}

private func isRegionByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x5F: true
    default: false
    }
}

/// Of host names, IPv4 and bracketed IPv6 addresses and ports.
private func isAuthorityByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x3A, 0x5B, 0x5D: true
    default: false
    }
}
