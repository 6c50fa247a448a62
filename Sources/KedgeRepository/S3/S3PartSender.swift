// Sends the parts of one multipart upload, several at a time.
//
//   submit ─▶ waiting ─▶ a thread sends it ─▶ tag
//                 ▲           └─failed──▶ failed ─▶ the next call throws the error and puts the part back
//
// 1. Memory is bounded: at most `partsInFlight` parts of one upload, and about `S3Store.partsInFlight` of all uploads
//    of a store, are held here. One part of each upload may always go, so none waits for another for ever.
// 2. Nothing is retried here: a call that throws a retryable error may be made again, and then the part is sent again.
// 3. Threads are started as there are parts, and end with `close`.

import Curl
import KedgeCore

/// The parts of one upload on their way.
final class S3PartSender: Sendable {
    /// A part, numbered from 1.
    struct Part: Sendable {
        let number: Int
        let bytes: [UInt8]
    }

    private struct State {
        var waiting: [Part] = []
        var failed: [Part] = []
        var error: KedgeError?
        var sending = 0
        var tags: [Int: String] = [:]
        var threads: [Thread] = []
        var isClosed = false

        var held: Int { waiting.count + sending + failed.count }

        /// Takes the error out; what failed is sent again.
        mutating func takeError() -> KedgeError? {
            guard let error else { return nil }
            self.error = nil
            waiting += failed
            failed = []
            return error
        }
    }

    private let name: ObjectName
    private let upload: String
    private let store: S3Store
    private let state = Monitor(State())

    static let partsInFlight = 4

    init(_ name: ObjectName, upload: String, store: S3Store) {
        self.name = name
        self.upload = upload
        self.store = store
    }

    /// Takes a part; waits while too many are on their way. Throws what went wrong with an earlier one, and then has
    /// not taken this one.
    func submit(_ part: Part) throws(KedgeError) {
        let error = state.wait { state -> KedgeError?? in
            if let error = state.takeError() { return .some(error) }
            if state.held > 0 {
                guard state.held < S3PartSender.partsInFlight, store.takePartSlot() else { return nil }
            } else {
                store.forcePartSlot()
            }
            state.waiting.append(part)
            return .some(nil)
        }
        if case .some(let error) = error { throw error }
        try startThreadIfUseful()
    }

    /// Waits until all of `count` parts are stored. Returns their tags in order. Throws what went wrong with one.
    func allTags(count: Int) throws(KedgeError) -> [String] {
        try startThreadIfUseful()
        let error = state.wait { state -> KedgeError?? in
            if state.waiting.isEmpty, state.sending == 0, state.failed.isEmpty { return .some(nil) }
            // All others first: then one call sends again whatever failed.
            guard state.waiting.isEmpty, state.sending == 0 else { return nil }
            return .some(state.takeError())
        }
        if case .some(let error) = error { throw error }
        let tags = state.update { $0.tags }
        let ordered = (0..<count).compactMap { tags[$0 + 1] }
        guard ordered.count == count else {
            throw KedgeError(.defect, "could not complete object \"\(name)\": a part was lost", hint: "Report this.")
        }
        return ordered
    }

    /// Drops what is not on its way yet, and waits for what is.
    func close() {
        let (threads, dropped) = state.update { state -> ([Thread], Int) in
            let dropped = state.waiting.count + state.failed.count
            state.waiting = []
            state.failed = []
            state.isClosed = true
            defer { state.threads = [] }
            return (state.threads, dropped)
        }
        for _ in 0..<dropped { store.givePartSlot() }
        for thread in threads { thread.join() }
    }

    // MARK: - Threads

    private func startThreadIfUseful() throws(KedgeError) {
        let number = state.update { state in
            state.threads.count < min(state.held, S3PartSender.partsInFlight) ? state.threads.count : nil
        }
        guard let number else { return }
        do throws(KedgeError) {
            let thread = try Thread(name: "s3-part-\(number)") { [self] in while sendNext() {} }
            state.update { $0.threads.append(thread) }
        } catch {
            // Fewer threads do the same work; without any there is nobody to do it.
            guard number > 0 else { throw error }
        }
    }

    /// Sends one part. Returns false when there will be none.
    private func sendNext() -> Bool {
        let next = state.wait { state -> Part?? in
            if state.isClosed { return .some(nil) }
            guard !state.waiting.isEmpty else { return nil }
            state.sending += 1
            return .some(state.waiting.removeFirst())
        }
        guard let part = next else { return false }
        do throws(KedgeError) {
            let tag = try send(part)
            state.update { state in
                state.sending -= 1
                state.tags[part.number] = tag
            }
            store.givePartSlot()
        } catch {
            let isDropped = state.update { state in
                state.sending -= 1
                if state.error == nil { state.error = error }
                if !state.isClosed { state.failed.append(part) }
                return state.isClosed
            }
            if isDropped { store.givePartSlot() }
        }
        return true
    }

    private func send(_ part: Part) throws(KedgeError) -> String {
        let request = S3Client.Request(
            method: .put, key: store.client.location.key(of: name),
            query: [("partNumber", String(part.number)), ("uploadId", upload)], body: [part.bytes],
            attempt: "could not store part \(part.number) of object \"\(name)\"")
        let response = try store.client.expect(request)
        try store.checkTag(response, request.attempt)
        return response.header("etag") ?? ""
    }
}
