"""Where other libraries' models and trainers meet Obverse; each module needs its library, which is imported on use."""
