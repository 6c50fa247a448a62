// What the restored cluster's own configuration says: read as the server reads it, from the restored files alone.
//
// Rules: src/backend/utils/misc/guc-file.l. `name = value` or `name value`; values in single quotes with '' and
// backslashes; `#` begins a comment; include, include_if_exists and include_dir; the last setting wins, and
// postgresql.auto.conf comes last. A path of the original is looked up among what was restored, never on this host.

package import KedgeCore

/// The settings of a restored cluster.
package struct RestoredSettings: Sendable {
    /// By name in small letters.
    package private(set) var values: [String: String] = [:]
    /// Included files that the backup does not hold.
    package private(set) var missing: [RawPath] = []
    private var depth = 0

    /// Where files of the original are now.
    package struct Places: Sendable {
        /// Where the data directory was, and where it is.
        let original: RawPath
        let restored: RawPath
        /// Extra files lie below it with their whole path.
        let extraFiles: RawPath

        package init(original: RawPath, restored: RawPath, extraFiles: RawPath) {
            self.original = original
            self.restored = restored
            self.extraFiles = extraFiles
        }

        func now(_ named: RawPath) -> RawPath {
            let path = Places.resolvingDots(in: named)
            let inside = original.bytes + [0x2F]
            if path.bytes.starts(with: inside) {
                return restored.appending(RawPath(bytes: path.bytes.dropFirst(inside.count)))
            }
            return RawPath(bytes: extraFiles.bytes + path.bytes)
        }

        /// An absolute path without "." and "..", which would lead from the restored files into this host's.
        private static func resolvingDots(in path: RawPath) -> RawPath {
            var parts: [ArraySlice<UInt8>] = []
            for part in path.bytes.split(separator: 0x2F) {
                if part.elementsEqual("..".utf8) {
                    _ = parts.popLast()
                } else if !part.elementsEqual(".".utf8) {
                    parts.append(part)
                }
            }
            return RawPath(bytes: parts.flatMap { [0x2F] + $0 })
        }
    }

    /// Reads the configuration of a cluster whose configuration file was `main`. Throws what reading throws; what is
    /// not there is listed in `missing`.
    package init(main: RawPath, _ places: Places) throws(KedgeError) {
        try read(main, places, isOptional: false)
        try read(places.original.appending("postgresql.auto.conf"), places, isOptional: true)
    }

    private mutating func read(_ path: RawPath, _ places: Places, isOptional: Bool) throws(KedgeError) {
        // The server's own limit (CONF_FILE_MAX_DEPTH).
        guard depth < 10 else { return }
        depth += 1
        defer { depth -= 1 }
        let bytes: [UInt8]
        do throws(KedgeError) {
            bytes = try FileDescriptor.open(places.now(path), .read).readAll(limit: 4 << 20)
        } catch  where error.code == .notFound {
            if !isOptional { missing.append(path) }
            return
        }
        for line in bytes.split(separator: 0x0A) {
            guard let (name, value) = RestoredSettings.parse(String(decoding: line, as: UTF8.self)) else { continue }
            let target = RawPath(value).isAbsolute ? RawPath(value) : path.parent.appending(value)
            switch name {
            case "include": try read(target, places, isOptional: false)
            case "include_if_exists": try read(target, places, isOptional: true)
            case "include_dir": try readDirectory(target, places)
            default: values[name] = value
            }
        }
    }

    /// The files whose names end with `.conf` and do not begin with a dot, in the order of their names.
    private mutating func readDirectory(_ path: RawPath, _ places: Places) throws(KedgeError) {
        do throws(KedgeError) {
            for entry in try Directory.entries(at: places.now(path)) {
                guard let name = entry.name.text, name.hasSuffix(".conf"), !name.hasPrefix(".") else { continue }
                try read(path.appending(entry.name), places, isOptional: true)
            }
        } catch  where error.code == .notFound {
            // An empty directory is no file of the backup, so nothing tells it from one that is not there.
        }
    }

    /// One line. Nil for an empty line, a comment, and what the server would not accept.
    package static func parse(_ line: String) -> (name: String, value: String)? {
        var rest = line.drop { $0 == " " || $0 == "\t" || $0 == "\r" }
        let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == ".") }
        guard !name.isEmpty else { return nil }
        rest = rest.dropFirst(name.count).drop { $0 == " " || $0 == "\t" }
        if rest.first == "=" { rest = rest.dropFirst().drop { $0 == " " || $0 == "\t" } }
        guard rest.first == "'" else {
            let value = rest.prefix { !" \t\r#".contains($0) }
            return value.isEmpty ? nil : (name.lowercased(), String(value))
        }
        var value = ""
        var characters = Array(rest.dropFirst().unicodeScalars)[...]
        while let character = characters.popFirst() {
            if character == "'" {
                guard characters.first == "'" else { return (name.lowercased(), value) }
                characters.removeFirst()
                value.unicodeScalars.append("'")
            } else if character == "\\", let next = characters.popFirst() {
                value.unicodeScalars.append(next == "n" ? "\n" : next == "r" ? "\r" : next == "t" ? "\t" : next)
            } else {
                value.unicodeScalars.append(character)
            }
        }
        return nil
    }

    /// The items of a list such as shared_preload_libraries: separated by commas, possibly in double quotes.
    package static func list(_ value: String) -> [String] {
        value.split(separator: ",").map { item in
            let trimmed = item.drop { $0 == " " || $0 == "\t" }
            return String(String(trimmed.reversed().drop { $0 == " " || $0 == "\t" }.reversed())).filter { $0 != "\"" }
        }.filter { !$0.isEmpty }
    }
}
