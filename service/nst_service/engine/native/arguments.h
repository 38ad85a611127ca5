// The keyword arguments of a call from Python. Whatever is wrong with one is an exception that names it.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

#include "stable_abi.h"

namespace nst {

// A mistake of the caller: what Python raises.
struct ArgumentError {
    PyObject *type;
    std::string message;
};

// The value of one argument, which the caller owns.
class Argument {
  public:
    Argument(const char *function, const char *name, PyObject *value)
        : function_(function), name_(name), value_(value) {}

    PyObject *value() const { return value_; }
    bool is_none() const { return value_ == Py_None; }

    // Returns the error that says what the argument must be.
    ArgumentError error(PyObject *type, const char *requirement) const {
        return {type, std::string(function_) + "() argument '" + name_ + "' must be " + requirement};
    }

    // Throws a ValueError unless the argument meets a requirement.
    void require(bool met, const char *requirement) const {
        if (!met) throw error(PyExc_ValueError, requirement);
    }

    int integer(int least, int most = INT_MAX) const { return int(integer_of(value_, least, most)); }
    size_t bytes() const { return size_t(integer_of(value_, 1, PY_SSIZE_T_MAX)); }

    bool boolean() const {
        if (!PyBool_Check(value_)) throw error(PyExc_TypeError, "a bool");
        return value_ == Py_True;
    }

    float number() const {
        const double result = PyFloat_AsDouble(value_);
        if (PyErr_Occurred()) {
            PyErr_Clear();
            throw error(PyExc_TypeError, "a float");
        }
        return float(result);
    }

    // Returns an integer that is the argument, or a part of it.
    long long integer_of(PyObject *value, long long least, long long most) const {
        if (!PyLong_Check(value)) throw error(PyExc_TypeError, "an int");
        int overflow;
        const long long result = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || result < least || result > most) {
            const std::string range = "from " + std::to_string(least) + " to " + std::to_string(most);
            throw error(PyExc_ValueError, range.c_str());
        }
        return result;
    }

  private:
    const char *function_, *name_;
    PyObject *value_;
};

// All arguments of a call by METH_FASTCALL | METH_KEYWORDS. Each is required, and none is positional.
class Arguments {
  public:
    Arguments(const char *function, PyObject *const *values, Py_ssize_t positional, PyObject *names)
        : function_(function), values_(values), names_(names), count_(names ? PyTuple_Size(names) : 0) {
        if (positional) throw error("() takes keyword arguments only");
        if (count_ > 64) throw error("() takes fewer arguments"); // A bit of `used_` for each.
    }

    Argument operator[](const char *name) {
        for (Py_ssize_t at = 0; at < count_; ++at)
            if (PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names_, at), name) == 0) {
                used_ |= uint64_t(1) << at;
                return {function_, name, values_[at]};
            }
        throw error(std::string("() is missing the argument '") + name + "'");
    }

    // Throws a TypeError if there are arguments that were not read.
    void expect_no_more() const {
        for (Py_ssize_t at = 0; at < count_; ++at)
            if (!(used_ >> at & 1)) {
                const char *name = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(names_, at), nullptr);
                PyErr_Clear();
                throw error(std::string("() has no argument '") + (name ? name : "?") + "'");
            }
    }

  private:
    ArgumentError error(const std::string &message) const {
        return {PyExc_TypeError, std::string(function_) + message};
    }

    const char *function_;
    PyObject *const *values_;
    PyObject *names_;
    Py_ssize_t count_;
    uint64_t used_ = 0;
};

// Runs a call that returns a new reference, and turns what it throws into Python's exceptions.
template <class Call> PyObject *guarded(Call call) {
    try {
        return call();
    } catch (const ArgumentError &error) {
        PyErr_SetString(error.type, error.message.c_str());
    } catch (const std::bad_alloc &) {
        PyErr_NoMemory();
    }
    return nullptr;
}

} // namespace nst
