// The two texts that pg_backup_stop returns and that recovery starts from, read and (the map) written.
//
// Pure. Formats: build_backup_content in src/backend/access/transam/xlogbackup.c, do_pg_backup_start, read_backup_label
// and read_tablespace_map in xlog.c and xlogrecovery.c. Texts are bytes: a path may hold any but zero.
package import KedgeCore

/// What `backup_label` says.
package struct BackupLabel: Sendable, Hashable {
    /// Where replay begins: the redo pointer of the backup's checkpoint.
    package let startLSN: LSN
    /// The WAL file that holds `startLSN`.
    package let startWALFile: String
    /// Where the checkpoint's own record is. Never before `startLSN`.
    package let checkpointLSN: LSN
    package let isFromStandby: Bool
    /// The server's local time with its zone's abbreviation, for people only.
    package let startTimeText: String
    package let label: String
    package let startTimeline: TimelineID

    /// Reads the file's bytes. Lines that are not known are left alone. Throws `damaged`.
    package init(parsing bytes: [UInt8]) throws(KedgeError) {
        var values: [String: String] = [:]
        for line in bytes.split(separator: 0x0A) {
            let text = String(decoding: line, as: UTF8.self)
            guard let colon = text.firstIndex(of: ":") else { continue }
            let value = text[text.index(after: colon)...]
            values[String(text[..<colon])] = String(value.first == " " ? value.dropFirst() : value)
        }
        func value(_ name: String) throws(KedgeError) -> String {
            guard let value = values[name] else { throw BackupLabel.damaged("The line \"\(name)\" is missing.") }
            return value
        }
        // START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
        let start = try value("START WAL LOCATION")
        let words = start.split(separator: " ")
        guard words.count == 3, let startLSN = LSN(words[0]), words[1] == "(file", words[2].last == ")",
            case .segment(let startWALFile)? = WALFileName(String(words[2].dropLast()))
        else { throw BackupLabel.damaged("The start is given as \"\(start)\".") }
        let checkpoint = try value("CHECKPOINT LOCATION")
        guard let checkpointLSN = LSN(checkpoint), checkpointLSN >= startLSN else {
            throw BackupLabel.damaged("The checkpoint is given as \"\(checkpoint)\", with start \(startLSN).")
        }
        let timeline = try value("START TIMELINE")
        guard let number = UInt32(timeline), number > 0 else {
            throw BackupLabel.damaged("The timeline is given as \"\(timeline)\".")
        }
        let source = try value("BACKUP FROM")
        // Servers before 14 wrote "master".
        guard ["primary", "master", "standby"].contains(source) else {
            throw BackupLabel.damaged("The source is given as \"\(source)\".")
        }
        self.startLSN = startLSN
        self.startWALFile = startWALFile
        self.checkpointLSN = checkpointLSN
        self.isFromStandby = source == "standby"
        self.startTimeText = try value("START TIME")
        self.label = try value("LABEL")
        self.startTimeline = TimelineID(number)
    }

    private static func damaged(_ why: String) -> KedgeError {
        KedgeError(.damaged, "cannot read backup_label", detail: why)
    }
}

/// What `tablespace_map` says: which symbolic link of `pg_tblspc` leads where.
package struct TablespaceMap: Sendable, Hashable {
    package struct Entry: Sendable, Hashable {
        package let oid: UInt32
        /// Absolute, without a slash at the end.
        package var path: [UInt8]

        package init(oid: UInt32, path: [UInt8]) {
            self.oid = oid
            self.path = path
        }
    }

    package var entries: [Entry]

    package init(_ entries: [Entry]) { self.entries = entries }

    /// Reads the file's bytes as a server of `majorVersion` does. Throws `damaged`.
    package init(parsing bytes: [UInt8], majorVersion: Int) throws(KedgeError) {
        entries = []
        var line: [UInt8] = []
        var isEscaped = false
        for (index, byte) in bytes.enumerated() {
            if isEscaped {
                isEscaped = false
                line.append(byte)
            } else if byte == TablespaceMap.backslash, TablespaceMap.escapes(at: index, of: bytes, majorVersion) {
                isEscaped = true
            } else if byte == 0x0A || byte == 0x0D {
                if !line.isEmpty { entries.append(try TablespaceMap.entry(line)) }
                line = []
            } else {
                line.append(byte)
            }
        }
        guard line.isEmpty, !isEscaped else { throw TablespaceMap.damaged("Its last line is not finished.") }
    }

    /// The file's bytes, as a server of `majorVersion` reads them.
    package func bytes(majorVersion: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        for entry in entries {
            bytes += Array("\(entry.oid) ".utf8)
            for byte in entry.path {
                let isSpecial = byte == 0x0A || byte == 0x0D || (byte == TablespaceMap.backslash && majorVersion >= 14)
                if isSpecial { bytes.append(TablespaceMap.backslash) }
                bytes.append(byte)
            }
            bytes.append(0x0A)
        }
        return bytes
    }

    private static let backslash = UInt8(ascii: "\\")

    /// Whether the backslash at `index` stands for the byte after it. Since 14 each one does;
    /// 13 wrote one before a line end only and left those of the path alone.
    private static func escapes(at index: Int, of bytes: [UInt8], _ majorVersion: Int) -> Bool {
        if majorVersion >= 14 { return true }
        return index + 1 < bytes.count && (bytes[index + 1] == 0x0A || bytes[index + 1] == 0x0D)
    }

    private static func entry(_ line: [UInt8]) throws(KedgeError) -> Entry {
        guard let space = line.firstIndex(of: 0x20),
            line[..<space].allSatisfy({ (0x30...0x39).contains($0) }),
            let oid = UInt32(String(decoding: line[..<space], as: UTF8.self)), oid > 0, space + 1 < line.count
        else {
            throw damaged("A line is \"\(String(decoding: line, as: UTF8.self))\", not an OID, a space and a path.")
        }
        return Entry(oid: oid, path: Array(line[(space + 1)...]))
    }

    private static func damaged(_ why: String) -> KedgeError {
        KedgeError(.damaged, "cannot read tablespace_map", detail: why)
    }
}
