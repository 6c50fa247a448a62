// The one owner of a libpq connection. C errors become values; nothing here knows what a query is for.
//
// 1. libpq is loaded by the first connection of the process (CLibpq), never before.
// 2. No password passes through here: libpq finds it itself (password file, service file, environment).
// 3. While the server works, a request to stop is noticed within a fifth of a second; while connecting too, name lookup
//    included (`ConnectionAttempt`).
// 4. A result's memory is libpq's; it is copied into Swift values and freed in the same function.
import CLibpq
import Glibc
package import KedgeCore

/// Why a connection could not be made or a query not be run.
package struct DatabaseFailure: Error, Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        /// libpq itself is not on this host.
        case libraryMissing
        /// There is no connection, or no longer one.
        case disconnected
        /// The server said no; the connection goes on.
        case refused
        /// Somebody asked us to stop while the server was at work; the query was cancelled, the connection is no more.
        case interrupted
    }

    package let kind: Kind
    /// What the server or libpq says, without a newline at the end.
    package let message: String
    /// The server's five-character error code, where the server got to say one.
    package var sqlState: String?
    package var detail: String?
    package var hint: String?
}

/// What a query gave: rows of values, each the bytes of its text form, nil for null.
package struct QueryResult: Sendable, Hashable {
    package let rows: [[[UInt8]?]]
}

/// A connection to a PostgreSQL server; closed by `close` or at the end of its scope. For one thread at a time.
package struct Connection: ~Copyable {
    /// Freed by PQfinish. Nil once closed.
    private var handle: OpaquePointer?
    private let notices: NoticeList

    /// Connects and waits for it, with libpq's own parameter keywords (manual, section "Parameter Key Words").
    ///
    /// What is not given comes from libpq's environment variables, service file and defaults.
    package init(
        _ parameters: [(keyword: String, value: String)], unless interruption: Interruption? = nil
    ) throws(DatabaseFailure) {
        if let message = clibpq_load() {
            throw DatabaseFailure(kind: .libraryMissing, message: String(cString: message))
        }
        guard let handle = try ConnectionAttempt.run(parameters, unless: interruption) else {
            throw DatabaseFailure(kind: .disconnected, message: "libpq is out of memory")
        }
        guard clibpq_status(handle) == CONNECTION_OK else {
            let message = text(clibpq_errorMessage(handle))
            clibpq_finish(handle)
            throw DatabaseFailure(kind: .disconnected, message: message)
        }
        let notices = NoticeList()
        // The list outlives the handle: both are stored properties here, and deinit frees the handle first.
        _ = clibpq_setNoticeProcessor(
            handle,
            { list, message in
                guard let list, let message else { return }
                Unmanaged<NoticeList>.fromOpaque(list).takeUnretainedValue().append(text(message))
            }, Unmanaged.passUnretained(notices).toOpaque())
        self.notices = notices
        self.handle = handle
    }

    /// Runs one statement with parameters `$1`, `$2`, … as text and waits for its result.
    ///
    /// The server has `limit` to answer; nil: as long as it takes. After the failures `disconnected` and `interrupted`
    /// the connection is closed.
    package mutating func query(
        _ sql: String, _ parameters: [String?] = [], within limit: Duration? = nil,
        unless interruption: Interruption? = nil
    ) throws(DatabaseFailure) -> QueryResult {
        guard let handle else { throw DatabaseFailure(kind: .disconnected, message: "the connection is closed") }
        do throws(DatabaseFailure) {
            let sent = withCStrings(parameters) { values in
                clibpq_sendQueryParams(handle, sql, Int32(parameters.count), nil, values, nil, nil, 0)
            }
            guard sent == 1 else { throw disconnection(of: handle) }
            try waitForInput(of: handle, within: limit, unless: interruption)
            let result = try collect(from: handle)
            return result
        } catch {
            if error.kind != .refused { close() }
            throw error
        }
    }

    /// Whether the server has something to say that nobody asked for: most likely that the session is over. Asks nobody
    /// and waits for nothing.
    package var hasUnaskedInput: Bool {
        guard let handle else { return false }
        var entry = pollfd(fd: clibpq_socket(handle), events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) > 0
    }

    /// 150004 for 15.4.
    package var serverVersion: Int { handle.map { Int(clibpq_serverVersion($0)) } ?? 0 }

    /// The server's notices and warnings since the last call, at most the hundred newest.
    package func takeNotices() -> [String] { notices.take() }

    /// Disconnects. Every later query fails.
    package mutating func close() {
        if let handle { clibpq_finish(handle) }
        handle = nil
    }

    deinit {
        if let handle { clibpq_finish(handle) }
    }
}

/// Waits until the whole result is here, as the manual's section "Asynchronous Command Processing" asks for it: poll,
/// consume, ask whether it is still busy.
private func waitForInput(
    of handle: OpaquePointer, within limit: Duration?, unless interruption: Interruption?
) throws(DatabaseFailure) {
    let time = SystemTimeSource()
    let begin = time.monotonicNanoseconds()
    let seconds = limit.map { UInt64(max(0, $0.components.seconds)) }
    while clibpq_isBusy(handle) == 1 {
        // What was sent may still lie in libpq's buffer: a full socket must be written to as well as read from (manual,
        // PQflush), or both sides would wait for each other.
        let unsent = clibpq_flush(handle)
        if unsent < 0 { throw disconnection(of: handle) }
        var entry = pollfd(
            fd: clibpq_socket(handle), events: Int16(unsent == 0 ? POLLIN : POLLIN | POLLOUT), revents: 0)
        let ready = poll(&entry, 1, interruption == nil && limit == nil ? -1 : 200)
        let failure = errno
        if ready < 0 && failure != EINTR {
            throw DatabaseFailure(kind: .disconnected, message: "waiting for the server failed with error \(failure)")
        }
        if ready > 0 && clibpq_consumeInput(handle) != 1 { throw disconnection(of: handle) }
        if let interruption, interruption.isRequested {
            cancel(handle)
            throw interrupted(interruption)
        }
        if let seconds, (time.monotonicNanoseconds() - begin) / 1_000_000_000 >= seconds, clibpq_isBusy(handle) == 1 {
            throw DatabaseFailure(kind: .disconnected, message: "the server did not answer for \(seconds) s")
        }
    }
}

/// The failure of what somebody asked to stop.
func interrupted(_ interruption: Interruption) -> DatabaseFailure {
    let reason = interruption.signal.map { "interrupted by signal \($0)" }
    return DatabaseFailure(kind: .interrupted, message: reason ?? "the work was stopped")
}

/// Asks the server to give the present query up. Best effort: the connection is closed next in any case.
private func cancel(_ handle: OpaquePointer) {
    guard let request = clibpq_getCancel(handle) else { return }
    var message = [CChar](repeating: 0, count: 256)
    _ = clibpq_cancel(request, &message, Int32(message.count))
    clibpq_freeCancel(request)
}

/// Takes the one result of the query, which is here. Later results of the same query would be another protocol's.
private func collect(from handle: OpaquePointer) throws(DatabaseFailure) -> QueryResult {
    guard let result = clibpq_getResult(handle) else { throw disconnection(of: handle) }
    defer { clibpq_clear(result) }
    // Until it returns NULL the connection takes no other query. With a lost connection there may be a second error.
    while let next = clibpq_getResult(handle) { clibpq_clear(next) }
    switch clibpq_resultStatus(result) {
    case PGRES_TUPLES_OK: return QueryResult(rows: rows(of: result))
    case PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: return QueryResult(rows: [])
    default: throw failure(of: result, on: handle)
    }
}

private func disconnection(of handle: OpaquePointer) -> DatabaseFailure {
    DatabaseFailure(kind: .disconnected, message: text(clibpq_errorMessage(handle)))
}

private func rows(of result: OpaquePointer) -> [[[UInt8]?]] {
    (0..<clibpq_ntuples(result)).map { row in
        (0..<clibpq_nfields(result)).map { column in
            guard clibpq_getisnull(result, row, column) == 0, let value = clibpq_getvalue(result, row, column) else {
                return nil
            }
            return Array(UnsafeRawBufferPointer(start: value, count: Int(clibpq_getlength(result, row, column))))
        }
    }
}

private func failure(of result: OpaquePointer, on handle: OpaquePointer) -> DatabaseFailure {
    func field(_ field: Int) -> String? {
        clibpq_resultErrorField(result, Int32(field)).map { text($0) }
    }
    let isConnected = clibpq_status(handle) == CONNECTION_OK
    return DatabaseFailure(
        kind: isConnected ? .refused : .disconnected,
        message: field(CLIBPQ_MESSAGE) ?? text(clibpq_errorMessage(handle)), sqlState: field(CLIBPQ_SQLSTATE),
        detail: field(CLIBPQ_DETAIL), hint: field(CLIBPQ_HINT))
}

/// A C string without the whitespace at its end; invalid UTF-8 is repaired.
private func text(_ message: UnsafePointer<CChar>?) -> String {
    guard let message else { return "" }
    var text = String(cString: message)
    while text.last?.isWhitespace == true { text.removeLast() }
    return text
}

/// Calls `body` with a NULL-terminated array of C strings that lives as long as the call; nil becomes NULL.
func withCStrings<Result>(
    _ strings: [String?], _ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result
) -> Result {
    var pointers = strings.map { string in string.flatMap { strdup($0) }.map { UnsafePointer($0) } }
    pointers.append(nil)
    defer { for pointer in pointers { free(UnsafeMutablePointer(mutating: pointer)) } }
    return body(pointers)
}

/// What the server said besides results. Used by the connection's own thread only.
private final class NoticeList {
    private var notices: [String] = []

    func append(_ notice: String) {
        if notices.count == 100 { notices.removeFirst() }
        notices.append(notice)
    }

    func take() -> [String] {
        defer { notices = [] }
        return notices
    }
}
